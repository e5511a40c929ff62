"""MMEngine glue: importing it (`custom_imports` of a config) registers everything that the configs name."""

from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.engine.datasets import build_labeled_images
from tokenlabel.engine.hooks import StopOnNonFiniteLoss, StoreModelConfig
from tokenlabel.engine.loops import EpochsAsIterationsLoop, RawAndAveragedValLoop
from tokenlabel.engine.metrics import TopK
from tokenlabel.engine.preprocessor import ImagePreprocessor
from tokenlabel.engine.runner import Runner
from tokenlabel.engine.targets import AnnotatorImageLabels, AnnotatorTokenLabels, ImageLabels, TokenLabels

__all__ = [
    'AnnotatorImageLabels',
    'AnnotatorTokenLabels',
    'EpochsAsIterationsLoop',
    'ImageLabels',
    'ImagePreprocessor',
    'RawAndAveragedValLoop',
    'Runner',
    'StopOnNonFiniteLoss',
    'StoreModelConfig',
    'TokenLabelClassifier',
    'TokenLabels',
    'TopK',
    'build_labeled_images',
]
