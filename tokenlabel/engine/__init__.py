"""MMEngine glue: importing it (`custom_imports` of a config) registers everything that the configs name."""

from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.engine.datasets import build_labeled_images
from tokenlabel.engine.hooks.first_batch import FirstBatchPicture
from tokenlabel.engine.hooks.model_config import ModelConfigHook
from tokenlabel.engine.hooks.non_finite_steps import StopOnNonFiniteSteps
from tokenlabel.engine.hooks.progress_bar import ProgressBar
from tokenlabel.engine.hooks.run_log import DeferredRuntimeInfoHook, ThroughputHook
from tokenlabel.engine.loops import EpochsAsIterationsLoop, RawAndEMAValLoop
from tokenlabel.engine.metrics import TopK
from tokenlabel.engine.optim.ema import SteppedEMA, SteppedEMAHook
from tokenlabel.engine.optim.optim_wrapper import SkippingAmpOptimWrapper, SkippingOptimWrapper
from tokenlabel.engine.preprocessor import ImagePreprocessor
from tokenlabel.engine.resuming.checkpoint_hook import FinalValidationHook, ResumableCheckpointHook
from tokenlabel.engine.resuming.optimizer_state import OptimizerStateHook
from tokenlabel.engine.resuming.preemption import StopOnSignal
from tokenlabel.engine.resuming.random_states import RandomStateHook
from tokenlabel.engine.resuming.seeded_samples import SeededSamples
from tokenlabel.engine.runner import Runner
from tokenlabel.engine.token_targets import AnnotatorImageLabels, AnnotatorTokenLabels, ImageLabels, TokenLabels

__all__ = [
    'AnnotatorImageLabels',
    'AnnotatorTokenLabels',
    'DeferredRuntimeInfoHook',
    'EpochsAsIterationsLoop',
    'FinalValidationHook',
    'FirstBatchPicture',
    'ImageLabels',
    'ImagePreprocessor',
    'ModelConfigHook',
    'OptimizerStateHook',
    'ProgressBar',
    'RandomStateHook',
    'RawAndEMAValLoop',
    'ResumableCheckpointHook',
    'Runner',
    'SeededSamples',
    'SkippingAmpOptimWrapper',
    'SkippingOptimWrapper',
    'SteppedEMA',
    'SteppedEMAHook',
    'StopOnNonFiniteSteps',
    'StopOnSignal',
    'ThroughputHook',
    'TokenLabelClassifier',
    'TokenLabels',
    'TopK',
    'build_labeled_images',
]
