"""Optimizer wrappers that skip steps with a non-finite loss or gradient."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

FUSED = ('Adam', 'AdamW')  # torch optimizers whose fused step can be skipped on the device


class SkipsNonFiniteSteps:
    """Mixin for an OptimWrapper: skips a step whose loss or gradient is NaN or infinite.

    A skipped step leaves parameters, optimizer state and BatchNorm running statistics as before the forward pass.
    Adam and AdamW with `fused=True` decide on the device without GPU synchronisation; other optimizers read one flag
    per step. The check follows the all-reduce of gradients, so all ranks decide alike. Gradient norms stay on the
    device, with or without clipping.

    Attributes:
        stepped: bool scalar on the device, whether the last iteration changed the parameters; None if it only
            accumulated gradients.
        at_fault: bool scalar on the device, whether the loss or a gradient was not finite; None as above. An overflow
            at a loss scale above 1 is part of the scale search: the step is skipped but not at fault.
        grad_norm: gradient norm of the last step before clipping, float scalar on the device; None as above.
    """

    stepped: Tensor | None = None
    at_fault: Tensor | None = None
    grad_norm: Tensor | None = None
    _before: list[tuple[Tensor, Tensor]] | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Saves the running statistics before the first forward pass of a step."""
        if self._before is None:
            self._before = [(buffer, buffer.clone()) for buffer in _running_statistics(model)]
        with super().optim_context(model):
            yield

    def update_params(self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None) -> None:
        self.stepped = self.at_fault = self.grad_norm = None
        # the factor is 1 if the loss is finite, else NaN, which reaches every gradient on all ranks
        super().update_params(loss * (loss.detach() * 0 + 1), step_kwargs, zero_kwargs)

    def load_state_dict(self, state_dict: dict) -> None:
        """As MMEngine, but in the memory layout of the parameters, which fused steps require."""
        super().load_state_dict(state_dict)
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    @torch.compiler.disable  # torch.compile does not support MMEngine's parameter groups
    def step(self, **kwargs) -> None:
        scaler = getattr(self, 'loss_scaler', None)
        scaled = scaler is not None and scaler.is_enabled()
        if scaled:
            scaler.unscale_(self.optimizer)
        self.grad_norm = self._clipped_norm()
        self.stepped = torch.isfinite(self.grad_norm)
        self.at_fault = ~self.stepped
        self._step_where(self.stepped, kwargs)
        for buffer, before in self._before or ():
            buffer.copy_(torch.where(self.stepped, buffer, before))
        self._before = None
        if scaled:
            if self._scale_update_param is None:
                self.at_fault = self.at_fault & (scaler.scale(torch.ones_like(self.grad_norm)) <= 1)
            scaler.update(self._scale_update_param)

    def _clipped_norm(self) -> Tensor:
        """Clips the gradients if configured; returns their norm before clipping."""
        parameters = [p for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        if self.clip_grad_kwargs and self.clip_func is nn.utils.clip_grad_norm_:
            norm = self.clip_func(parameters, **self.clip_grad_kwargs).detach()
        else:
            norm = nn.utils.get_total_norm([p.grad for p in parameters])
            if self.clip_grad_kwargs:
                self.clip_func(parameters, **self.clip_grad_kwargs)
        return norm

    def _step_where(self, finite: Tensor, kwargs: dict) -> None:
        if not is_fused(self.optimizer):
            if finite:
                self.optimizer.step(**kwargs)
            return
        # the attributes that torch's GradScaler sets on fused optimizers
        self.optimizer.grad_scale, self.optimizer.found_inf = None, (~finite).float()
        try:
            self.optimizer.step(**kwargs)
        finally:
            del self.optimizer.grad_scale, self.optimizer.found_inf


@OPTIM_WRAPPERS.register_module()
class SkippingOptimWrapper(SkipsNonFiniteSteps, OptimWrapper):
    """MMEngine's OptimWrapper that skips non-finite steps."""


@OPTIM_WRAPPERS.register_module()
class SkippingAmpOptimWrapper(SkipsNonFiniteSteps, AmpOptimWrapper):
    """MMEngine's AmpOptimWrapper that skips non-finite steps.

    In bfloat16 the loss is not scaled by default: bfloat16 has the range of float32, and the scaler would synchronise
    with the GPU in every step.
    """

    def __init__(self, loss_scale: str | float | dict | None = None, dtype: str | torch.dtype | None = None, **kwargs):
        if loss_scale is None:
            loss_scale = {'enabled': False} if dtype in ('bfloat16', torch.bfloat16) else 'dynamic'
        super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of this optimizer can be skipped on the device.

    SGD cannot: if its first fused step is skipped, its momentum buffer stays uninitialised. Nor can an optimizer whose
    loaded state turns fused steps off for a group.
    """
    return type(optimizer).__name__ in FUSED and all(group.get('fused') for group in optimizer.param_groups)


def _running_statistics(model: nn.Module) -> list[Tensor]:
    layers = [module for module in model.modules() if isinstance(module, _NormBase)]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
