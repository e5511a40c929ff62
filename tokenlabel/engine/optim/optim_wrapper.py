"""Optimizer steps that leave everything as it was where the loss or a gradient is not finite."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

FUSED = ('Adam', 'AdamW')  # optimizers of torch whose fused step can be called off on the device


class SkipsNonFiniteSteps:
    """For an OptimWrapper: a step whose loss or gradient is NaN or infinite changes nothing.

    Parameters, optimizer state and the running statistics of batch normalisation stay what they were before the
    forward pass. Adam and AdamW with `fused=True` decide on the device, and no step waits for the host; of other
    optimizers the host reads one flag per step. Gradients are averaged before they are looked at, so all processes
    decide alike. Gradient norms, too, stay on the device, clipping or not.

    Attributes:
        stepped: bool scalar on the device, whether the last iteration changed the parameters; None where it only
            accumulated gradients.
        at_fault: as `stepped`, whether the loss or a gradient was not finite. A loss scaler above 1 that meets an
            overflow is looking for its scale: such a step is skipped and no fault.
        grad_norm: of the last step before clipping, a float scalar on the device; None as above.
    """

    stepped: Tensor | None = None
    at_fault: Tensor | None = None
    grad_norm: Tensor | None = None
    _before: list[tuple[Tensor, Tensor]] | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Remembers the running statistics before the first forward pass of a step."""
        if self._before is None:
            self._before = [(buffer, buffer.clone()) for buffer in _running_statistics(model)]
        with super().optim_context(model):
            yield

    def update_params(self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None) -> None:
        self.stepped = self.at_fault = self.grad_norm = None
        # 1 where the loss is finite and else NaN, which reaches every gradient, in all processes
        super().update_params(loss * (loss.detach() * 0 + 1), step_kwargs, zero_kwargs)

    def load_state_dict(self, state_dict: dict) -> None:
        """As MMEngine; the state is laid out in memory as the parameters are, which fused steps take for granted."""
        super().load_state_dict(state_dict)
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    @torch.compiler.disable  # torch.compile does not take the parameter groups that MMEngine makes
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
        """Clips the gradients where the config says so; returns the norm that they had."""
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
        # what torch's own GradScaler hands to fused optimizers
        self.optimizer.grad_scale, self.optimizer.found_inf = None, (~finite).float()
        try:
            self.optimizer.step(**kwargs)
        finally:
            del self.optimizer.grad_scale, self.optimizer.found_inf


@OPTIM_WRAPPERS.register_module()
class SkippingOptimWrapper(SkipsNonFiniteSteps, OptimWrapper):
    """MMEngine's OptimWrapper; steps that are not finite are skipped."""


@OPTIM_WRAPPERS.register_module()
class SkippingAmpOptimWrapper(SkipsNonFiniteSteps, AmpOptimWrapper):
    """MMEngine's AmpOptimWrapper; steps that are not finite are skipped.

    In bfloat16 the loss is not scaled unless `loss_scale` says so: its range is that of float32, and the scaler would
    read the device in every step.
    """

    def __init__(self, loss_scale: str | float | dict | None = None, dtype: str | torch.dtype | None = None, **kwargs):
        if loss_scale is None:
            loss_scale = {'enabled': False} if dtype in ('bfloat16', torch.bfloat16) else 'dynamic'
        super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of this optimizer can be called off on the device.

    Not so SGD: where its very first fused step is called off, its momentum starts from memory that was never written.
    Nor an optimizer whose loaded state says of its groups that they take no fused steps.
    """
    return type(optimizer).__name__ in FUSED and all(group.get('fused') for group in optimizer.param_groups)


def _running_statistics(model: nn.Module) -> list[Tensor]:
    layers = [module for module in model.modules() if isinstance(module, _NormBase)]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
