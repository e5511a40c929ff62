"""Hooks that both stages share."""

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from tokenlabel.engine.classes import number_evaluation_labels
from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.errors import UserError


@HOOKS.register_module()
class StopOnNonFiniteLoss(Hook):
    """Stops the run once a loss was NaN or infinite, before such weights reach a checkpoint.

    Finiteness is gathered on the device at every step and read at the logging interval and before a checkpoint is
    written, so that no step waits for the host.

    Args:
        interval: iterations between two looks.
    """

    priority = 'VERY_HIGH'

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._all_finite: torch.Tensor | None = None

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        finite = torch.isfinite(outputs['loss'].detach())
        self._all_finite = finite if self._all_finite is None else self._all_finite & finite
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._look(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._look(runner)

    def _look(self, runner: Runner) -> None:
        if self._all_finite is None:
            return
        if not bool(self._all_finite):
            raise UserError(
                f'The loss became NaN or infinite by iteration {runner.iter + 1}: the checkpoints in '
                f'{runner.work_dir} are from before; resume from the last with a lower learning rate or with clipping '
                '(optim_wrapper.clip_grad.max_norm=1).'
            )
        self._all_finite = None


@HOOKS.register_module()
class StoreModelConfig(Hook):
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
        classifier = _classifier(runner)
        checkpoint['tokenlabel'] = {
            'architecture': classifier.architecture,
            'num_classes': classifier.num_classes,
            'class_names': classifier.class_names,
            'token_score_weight': getattr(classifier.model, 'token_score_weight', 0.0),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the names over, unless the images to train on have given others."""
        classifier = _classifier(runner)
        classifier.class_names = classifier.class_names or checkpoint.get('tokenlabel', {}).get('class_names')


def _classifier(runner: Runner) -> TokenLabelClassifier:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
