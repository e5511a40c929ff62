"""What a checkpoint says about its model beside the weights."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from tokenlabel.engine.classes import number_evaluation_labels
from tokenlabel.engine.classifier import classifier_of


@HOOKS.register_module()
class ModelConfigHook(Hook):
    """Writes architecture, classes and scoring rule beside the weights, where `load_checkpoint` looks for them.

    With the names of the classes, images to evaluate on are numbered as the model numbers them; that they can be is
    checked before the first step.
    """

    def before_train(self, runner: Runner) -> None:
        if runner.val_loop is not None:
            number_evaluation_labels(runner.model, runner.val_loop.dataloader.dataset)

    def before_val(self, runner: Runner) -> None:
        number_evaluation_labels(runner.model, runner.val_loop.dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        number_evaluation_labels(runner.model, runner.test_loop.dataloader.dataset)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        classifier = classifier_of(runner)
        checkpoint['tokenlabel'] = {
            'architecture': classifier.architecture,
            'num_classes': classifier.num_classes,
            'class_names': classifier.class_names,
            'token_score_weight': getattr(classifier.model, 'token_score_weight', 0.0),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the names over, unless the images to train on have given others."""
        classifier = classifier_of(runner)
        classifier.class_names = classifier.class_names or checkpoint.get('tokenlabel', {}).get('class_names')
