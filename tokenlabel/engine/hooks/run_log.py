"""Collects what a run logs without GPU synchronisation in every iteration."""

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's RuntimeInfoHook that reads losses from the device only when they are logged.

    The history is the same. It includes the OptimWrapper's gradient norm as `grad_norm`.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._unread: list[tuple[str, Tensor]] = []
        self._interval = _logging_interval(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        values = dict(outputs or {})
        if (norm := getattr(runner.optim_wrapper, 'grad_norm', None)) is not None:
            values['grad_norm'] = norm
        for name, value in values.items():
            if isinstance(value, Tensor):
                self._unread.append((f'train/{name}', value.detach()))
            else:
                runner.message_hub.update_scalar(f'train/{name}', value)
        logs_end = self.end_of_epoch(runner.train_dataloader, batch_idx) or self.is_last_train_iter(runner)
        if self.every_n_inner_iters(batch_idx, self._interval) or logs_end:
            self._read(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Updates the log history that MMEngine has put into the checkpoint."""
        if getattr(self, '_unread', None):
            self._read(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def _read(self, runner: Runner) -> None:
        if self._unread:
            names, values = zip(*self._unread, strict=True)
            for name, value in zip(
                names, torch.stack([value.float().reshape(()) for value in values]).tolist(), strict=True
            ):
                runner.message_hub.update_scalar(name, value)
            self._unread.clear()


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Logs `images_per_second`, over all processes, and `data_wait`, the share of the time spent waiting for data.

    Both are means over the iterations since the last log line, from the times of MMEngine's IterTimerHook, without
    validation.
    """

    priority = 55  # after IterTimerHook, before LoggerHook

    def before_train(self, runner: Runner) -> None:
        self._interval = _logging_interval(runner)
        self._num_iterations = self._num_images = 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        self._num_iterations += 1
        self._num_images += len(next(iter(data_batch.values())))
        if self.every_n_inner_iters(batch_idx, self._interval) or self.is_last_train_iter(runner):
            hub, count = runner.message_hub, self._num_iterations
            seconds = hub.get_scalar('train/time').mean(count) * count
            waiting = hub.get_scalar('train/data_time').mean(count) * count
            hub.update_scalar('train/images_per_second', self._num_images * get_world_size() / seconds)
            hub.update_scalar('train/data_wait', waiting / seconds)
            self._num_iterations = self._num_images = 0


def _logging_interval(runner: Runner) -> int:
    return min((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), default=50)
