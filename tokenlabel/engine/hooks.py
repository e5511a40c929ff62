"""Hooks that both stages share."""

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

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
    """Writes architecture, class count and scoring rule beside the weights, where `load_checkpoint` looks for them."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        classifier = runner.model.module if is_model_wrapper(runner.model) else runner.model
        checkpoint['tokenlabel'] = {
            'architecture': classifier.architecture,
            'num_classes': classifier.num_classes,
            'token_score_weight': getattr(classifier.model, 'token_score_weight', 0.0),
        }
