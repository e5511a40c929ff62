"""EMA weights that ignore skipped optimizer steps."""

from collections import defaultdict
from typing import Annotated

import torch
from mmengine.hooks import EMAHook
from mmengine.model import MomentumAnnealingEMA
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn

from tokenlabel.argument_checks import Natural, Positive, Range, checked

Momentum = Annotated[float, Range(0, 1, above=True, below=True)]


@MODELS.register_module()
class SteppedEMA(MomentumAnnealingEMA):
    """MMEngine's MomentumAnnealingEMA in a few kernels; ignores skipped steps without GPU synchronisation.

    `ema += max(momentum, gamma / (gamma + steps)) * (weights - ema)`, where `steps` counts the steps taken.

    Args:
        model: model to average.
        momentum: weight of the newest weights after the warm-up, in (0, 1).
        gamma: length of the warm-up, in steps; above 0.
        update_buffers: average floating-point buffers instead of copying them.
    """

    @checked
    def __init__(
        self, model: nn.Module, momentum: Momentum = 2e-4, gamma: Positive = 100, update_buffers: bool = False
    ):
        super().__init__(model, momentum=momentum, gamma=gamma, update_buffers=update_buffers)
        self.steps = self.steps.to(next(model.parameters()).device)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module, stepped: Tensor | bool = True) -> None:
        """Moves the EMA weights towards `model` if `stepped`, a bool scalar, is true."""
        stepped = torch.as_tensor(stepped, device=self.steps.device)
        weight = (self.gamma / (self.gamma + self.steps.double())).clamp(min=self.momentum) * stepped
        averaged = list(zip(self.module.parameters(), model.parameters(), strict=True))
        copied = []
        for pair in zip(self.module.buffers(), model.buffers(), strict=True):
            (averaged if self.update_buffers and pair[0].is_floating_point() else copied).append(pair)
        by_dtype = defaultdict(list)  # one call takes tensors of one dtype
        for pair in averaged:
            by_dtype[pair[0].dtype].append(pair)
        for dtype, pairs in by_dtype.items():
            averages, values = zip(*pairs, strict=True)
            # _foreach_lerp_ with a weight on the device launches one kernel per tensor
            moves = torch._foreach_sub(values, averages)
            torch._foreach_mul_(moves, weight.to(dtype))
            torch._foreach_add_(averages, moves)
        for average, value in copied:
            average.copy_(value)
        self.steps += stepped


@HOOKS.register_module()
class SteppedEMAHook(EMAHook):
    """MMEngine's EMAHook for `SteppedEMA`: updates the EMA weights once per optimizer step that was not skipped.

    Args:
        momentum, gamma, update_buffers: arguments of `SteppedEMA`.
        begin_iter: until this iteration the EMA weights are a copy of the weights.
    """

    @checked
    def __init__(
        self,
        momentum: Momentum = 2e-4,
        gamma: Positive = 100,
        update_buffers: bool = False,
        begin_iter: Natural = 0,
    ):
        average = dict(momentum=momentum, gamma=gamma, update_buffers=update_buffers)
        super().__init__('SteppedEMA', begin_iter=begin_iter, **average)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        stepped = _stepped(runner.optim_wrapper)
        if not self._ema_started(runner):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)
        elif stepped is not None:
            self.ema_model.update_parameters(self.src_model, stepped)


def _stepped(optim_wrapper: object) -> Tensor | bool | None:
    """Whether an iteration's step was taken; None if the iteration only accumulated gradients."""
    if hasattr(optim_wrapper, 'stepped'):
        return optim_wrapper.stepped
    return True if getattr(optim_wrapper, 'should_update', lambda: True)() else None
