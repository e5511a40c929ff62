"""Metadata of the model that a checkpoint stores beside the weights."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from tokenlabel.engine.classifier import classifier_of


@HOOKS.register_module()
class ModelConfigHook(Hook):
    """Writes architecture, classes and scoring rule beside the weights, where `load_checkpoint` looks for them."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['tokenlabel'] = classifier_of(runner).description

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads the class names, unless the training images have set them."""
        classifier = classifier_of(runner)
        classifier.class_names = classifier.class_names or checkpoint.get('tokenlabel', {}).get('class_names')
