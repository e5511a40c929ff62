"""Segmentors by registry name."""

from mmseg_ext.segmentors.batched_encoder_decoder import BatchedEncoderDecoder
from mmseg_ext.segmentors.batched_tta import BatchedTTAModel
from mmseg_ext.segmentors.data_preprocessor import SegDataPreProcessor

__all__ = ['BatchedEncoderDecoder', 'BatchedTTAModel', 'SegDataPreProcessor']
