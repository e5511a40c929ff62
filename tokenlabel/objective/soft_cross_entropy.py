"""Soft cross-entropy of logits [B, N, C] on sparse targets, in plain PyTorch or by the fused kernel.

A target is a background b for all classes, and class ids with an excess e over it; it sums to T. It gives

    H = T logsumexp(x) - b sum(x) - sum(e x[ids]),      dH/dx = T softmax(x) - b - scatter(e).
"""

import functools
import importlib.util
import os
import shutil

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits per chunk, rounded to whole images: few enough to stay in a CPU's cache, enough to fill a GPU.
_CPU_CHUNK = 2**18
_GPU_CHUNK = 2**22

_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_KERNEL_IDS = 128


def soft_cross_entropy(
    logits: Tensor, ids: Tensor, excess: Tensor, background: Tensor, fused: bool = True, in_place: bool = False
) -> Tensor:
    """Mean soft cross-entropy over B and N, a scalar of at least float32.

    Args:
        logits: [B, N, C], of any floating dtype.
        ids: int64 [B, N, M], class ids; equal ids add up.
        excess: [B, N, M], target minus background of these classes.
        background: [B, N], target of all other classes.
        fused: use the Triton kernel where `kernel_is_faster`. It computes in float32.
        in_place: without the kernel, overwrite the logits with their gradient. This saves memory of their size and the
            time to allocate it. Nothing may read the logits after the backward pass (autograd detects its own reads).
            Leaf tensors are never overwritten.
    """
    if fused and kernel_is_faster(logits, ids):
        from tokenlabel.objective.soft_cross_entropy_kernel import fused_soft_cross_entropy

        return fused_soft_cross_entropy(logits, ids, excess, background)[0]
    total = excess.sum(-1) + logits.shape[-1] * background
    return _SoftCrossEntropy.apply(logits, ids, excess, background, total, in_place and not logits.is_leaf)


def kernel_is_faster(logits: Tensor, ids: Tensor) -> bool:
    """Whether the Triton kernel is available and faster than plain PyTorch.

    The kernel reads the logits once and writes their gradient, so it moves fewer bytes. It is not faster without a
    gradient, nor for targets that list many classes, because it compares all of them with each other. The class
    token's target lists every class, but it is only 1 / N of the logits.
    """
    needs_gradient = logits.requires_grad and torch.is_grad_enabled()
    fits = logits.is_cuda and logits.dtype in _KERNEL_DTYPES and 1 <= ids.shape[-1] <= _KERNEL_IDS
    return needs_gradient and fits and _has_triton()


@functools.cache
def _has_triton() -> bool:
    """Whether there is Triton, an NVIDIA GPU, and the C compiler that Triton needs to build its launchers."""
    compiler = os.environ.get('CC') or shutil.which('gcc') or shutil.which('clang')
    return torch.version.cuda is not None and bool(compiler) and importlib.util.find_spec('triton') is not None


class _SoftCrossEntropy(torch.autograd.Function):
    """Works in chunks that stay in the cache; the backward pass computes the gradient, the only large tensor."""

    @staticmethod
    def forward(
        ctx, logits: Tensor, ids: Tensor, excess: Tensor, background: Tensor, total: Tensor, in_place: bool
    ) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        lse = torch.empty(logits.shape[:2], dtype=dtype, device=logits.device)
        loss = torch.empty_like(lse)
        for part in _chunks(logits):
            x = logits[part].to(dtype)
            lse[part] = x.logsumexp(-1)
            at_ids = (x.gather(-1, ids[part]) * excess[part]).sum(-1)
            loss[part] = total[part] * lse[part] - background[part] * x.sum(-1) - at_ids
        ctx.save_for_backward(logits, lse, ids, excess, background, total)
        ctx.in_place = in_place
        return loss.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        logits, lse, ids, excess, background, total = ctx.saved_tensors
        scale = grad_output / lse.numel()
        grad = logits.detach() if ctx.in_place else torch.empty_like(logits)
        for part in _chunks(logits):
            x = logits[part].to(lse.dtype)
            into = grad[part] if grad.dtype == x.dtype else torch.empty_like(x)
            softmax = torch.sub(x, lse[part][..., None], out=into).exp_()
            slope = softmax.mul_((total[part] * scale)[..., None]).sub_((background[part] * scale)[..., None])
            slope.scatter_add_(-1, ids[part], (excess[part] * -scale).to(slope.dtype))
            if grad.dtype != x.dtype:
                grad[part] = slope
        return grad, None, None, None, None, None


def _chunks(logits: Tensor) -> list[slice]:
    chunk = _CPU_CHUNK if logits.device.type == 'cpu' else _GPU_CHUNK
    step = max(1, chunk // max(1, logits.shape[1:].numel()))
    return [slice(start, start + step) for start in range(0, len(logits), step)]
