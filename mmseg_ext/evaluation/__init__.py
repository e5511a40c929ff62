"""Evaluation metrics by registry name."""

from mmseg_ext.evaluation.streaming_iou import StreamingIoU

__all__ = ['StreamingIoU']
