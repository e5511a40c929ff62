"""Counts skipped optimizer steps and stops a run before it saves diverged weights."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import Dataset

from tokenlabel.argument_checks import Count, checked
from tokenlabel.checkpoints.contents import first_non_finite, is_number
from tokenlabel.engine.optim.optim_wrapper import SkipsNonFiniteSteps
from tokenlabel.errors import UserError
from tokenlabel.files.writing import write_atomically


@dataclass
class _Step:
    """An optimizer step: its iteration, its samples and, on the device, its outcome."""

    iteration: int = 0
    samples: list = field(default_factory=list)
    stepped: Tensor | None = None
    at_fault: Tensor | None = None


@HOOKS.register_module()
class StopOnNonFiniteSteps(Hook):
    """Stops the run after several steps in a row with a NaN or infinite loss or gradient.

    The OptimWrapper skips such steps, so checkpoints from before and during them hold good weights. The hook reads the
    outcome of the steps from the device every `interval` iterations and before a checkpoint is written, and logs the
    number of skipped steps as `skipped_steps`. When the run stops, `non_finite_samples.txt` in the work dir lists the
    samples of the steps since the last read: iteration, `skipped` or `ok`, and key, separated by tabs. Other ranks
    write `non_finite_samples_rank1.txt`, ...

    Args:
        interval: iterations between two reads.
        limit: number of steps in a row that stop the run.
    """

    priority = 'VERY_HIGH'

    @checked
    def __init__(self, interval: Count = 50, limit: Count = 3) -> None:
        self.interval = interval
        self.limit = limit
        self._steps: list[_Step] = []
        self._open = _Step()
        self._in_a_row = self._num_skipped = 0

    def before_train(self, runner: Runner) -> None:
        self._watches = isinstance(runner.optim_wrapper, SkipsNonFiniteSteps)
        if not self._watches:
            # built by MMEngine's Runner, which does not substitute the types that skip
            runner.logger.warning(
                f'{type(runner.optim_wrapper).__name__} does not skip non-finite steps, so they are not counted: set '
                'optim_wrapper.type to SkippingOptimWrapper or SkippingAmpOptimWrapper.'
            )
        earlier = runner.message_hub.log_scalars.get('train/skipped_steps')
        if earlier is not None and runner.iter and is_number(earlier.current()):
            self._num_skipped = int(earlier.current())

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if not self._watches:
            return
        wrapper = runner.optim_wrapper
        self._open.samples.append(identities_of(data_batch))
        if wrapper.stepped is not None:
            self._open.iteration = runner.iter + 1
            self._open.stepped, self._open.at_fault = wrapper.stepped, wrapper.at_fault
            self._steps.append(self._open)
            self._open = _Step()
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._look(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._look(runner)

    def _look(self, runner: Runner) -> None:
        if not self._steps:
            return
        flags = torch.stack([torch.stack([step.stepped, step.at_fault]) for step in self._steps]).tolist()
        longest = 0
        for _, at_fault in flags:
            self._in_a_row = self._in_a_row + 1 if at_fault else 0
            longest = max(longest, self._in_a_row)
        skipped = sum(not stepped for stepped, _ in flags)
        self._num_skipped += skipped
        runner.message_hub.update_scalar('train/skipped_steps', self._num_skipped)
        if longest >= self.limit:
            self._stop(runner, flags, longest)
        if skipped:
            runner.logger.warning(
                f'{skipped} of the last {len(flags)} steps were skipped ({self._num_skipped} in all): their loss or '
                'gradient was NaN or infinite.'
            )
        self._steps.clear()

    def _stop(self, runner: Runner, flags: list, longest: int) -> None:
        dataset = runner.train_dataloader.dataset
        lines = [
            f'{step.iteration}\t{"ok" if stepped else "skipped"}\t{key}\n'
            for step, (stepped, _) in zip(self._steps, flags, strict=True)
            for samples in step.samples
            for key in keys_of(samples, dataset)
        ]
        path = Path(runner.work_dir, f'non_finite_samples{f"_rank{runner.rank}" if runner.rank else ""}.txt')
        write_atomically(path, ''.join(lines))
        raise UserError(
            f'{longest} steps in a row by iteration {self._steps[-1].iteration} had a NaN or infinite loss or gradient '
            f'and were skipped (their samples: {path}): the checkpoints in {runner.work_dir} are good; resume from the '
            'last with a lower learning rate or with clipping (optim_wrapper.clip_grad.max_norm=1).'
        )


@HOOKS.register_module()
class RefuseNonFiniteWeights(Hook):
    """No checkpoint is written of weights that are NaN or infinite: the last one that is there stays a good one.

    Steps that are skipped cannot make such weights, but an OptimWrapper of another kind can, or a learning rate.
    """

    priority = 'LOWEST'  # after EMAHook, which adds its own

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        for part in ('state_dict', 'ema_state_dict'):
            if name := first_non_finite(checkpoint.get(part, {})):
                raise UserError(
                    f'The weights are NaN or infinite by iteration {runner.iter + 1} (the first: {name}), so no '
                    f'checkpoint is written: resume from the last in {runner.work_dir} with a lower learning rate or '
                    'with clipping (optim_wrapper.clip_grad.max_norm=1).'
                )


def identities_of(data_batch: dict) -> Tensor | list[str]:
    """Identifies the samples of a batch: by index, or by file in segmentation."""
    if 'index' in data_batch:
        return data_batch['index']
    return [sample.img_path for sample in data_batch['data_samples']]


def keys_of(samples: Tensor | list[str], dataset: Dataset) -> list[str]:
    """Paths of the samples from `identities_of`: relative to the image root in pretraining, full in segmentation."""
    return [dataset.key(int(index)) for index in samples] if isinstance(samples, Tensor) else samples
