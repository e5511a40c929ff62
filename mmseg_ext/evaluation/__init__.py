"""Evaluation metrics and drawn predictions by registry name."""

from mmseg_ext.evaluation.iou_metric import IoUMetric
from mmseg_ext.evaluation.streaming_iou import StreamingIoU
from mmseg_ext.evaluation.visualization import LocalVisBackend, SegVisualizationHook

__all__ = ['IoUMetric', 'LocalVisBackend', 'SegVisualizationHook', 'StreamingIoU']
