"""Soft cross-entropy on sparse targets and its gradient in one pass over the logits, in Triton.

One program handles one token. It reads the token's logits, writes its loss and the slope T softmax(x) - b, and then
corrects the few slopes of classes with an excess, whose logits are still in the cache. Memory of the logits' size is
read once and written once. Up to `MAX_BLOCK` classes stay in registers; with more, a second sweep reads them again from
the cache. The backward pass scales the slopes in place and skips this if the factor is 1, that is for a loss that is
neither weighted nor scaled.

Importing this module needs Triton.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits in the registers of one program: 32 for each of 1024 threads, half of the capacity.
MAX_BLOCK = 2**15
_SCALE_BLOCK = 4096

# Scale of the stored slopes of float16 logits. Slopes divided by the number of tokens would underflow; with this factor
# they are precise down to 1e-8 and may be as large as 15.
_FLOAT16_UNIT = 2.0**12


@torch.library.custom_op('tokenlabel::soft_cross_entropy', mutates_args=())
def fused_soft_cross_entropy(logits: Tensor, ids: Tensor, excess: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """Mean soft cross-entropy, a float32 scalar, and the slopes [B, N, C] that the backward pass needs.

    The backward pass overwrites the slopes with the gradient, so a graph allows one backward pass and no second
    derivative.

    Args:
        logits: float32, bfloat16 or float16 [B, N, C], of any strides; computed in float32.
        ids: int64 [B, N, M], class ids in [0, C); equal ids add up. M should be some dozens, as the work grows with
            M^2. An id out of range makes loss and gradient of its token NaN.
        excess: [B, N, M], target minus background of these classes.
        background: [B, N], target of all other classes.
    """
    batch, num_tokens, num_classes = logits.shape
    num_ids = ids.shape[-1]
    losses = torch.empty_like(background, dtype=torch.float32, memory_format=torch.contiguous_format)
    slopes = torch.empty_like(logits, memory_format=torch.contiguous_format)
    block = min(triton.next_power_of_2(num_classes), MAX_BLOCK)
    with torch.cuda.device_of(logits):
        _token_kernel[(batch * num_tokens,)](
            logits,
            ids.contiguous(),
            excess.contiguous(),
            background.contiguous(),
            losses,
            slopes,
            num_tokens,
            num_ids,
            _unit(logits),
            *logits.stride(),
            NUM_CLASSES=num_classes,
            BLOCK=block,
            IDS_BLOCK=triton.next_power_of_2(num_ids),
            # with 16 logits per thread, registers suffice for many concurrent programs
            num_warps=min(max(block // 512, 1), 32),
        )
    return losses.mean(), slopes


@fused_soft_cross_entropy.register_fake
def _(logits: Tensor, ids: Tensor, excess: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    loss = logits.new_empty((), dtype=torch.float32)
    return loss, torch.empty_like(logits, memory_format=torch.contiguous_format)


@torch.library.custom_op('tokenlabel::scale_', mutates_args=('values',))
def _scale_(values: Tensor, factor: Tensor, multiplier: float) -> None:
    """Multiplies contiguous `values` by the scalar `factor * multiplier`, without memory traffic if that is 1."""
    with torch.cuda.device_of(values):
        grid = (triton.cdiv(values.numel(), _SCALE_BLOCK),)
        _scale_kernel[grid](values, factor, multiplier, values.numel(), BLOCK=_SCALE_BLOCK)


def _unit(logits: Tensor) -> float:
    """The factor by which stored slopes are multiplied."""
    return _FLOAT16_UNIT if logits.dtype == torch.float16 else 1 / logits.shape[:2].numel()


def _keep_slopes(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    logits, slopes = inputs[0], output[1]
    # exactly 1 if the slopes already include the division by the number of tokens
    ctx.multiplier = 1 / (_unit(logits) * logits.shape[:2].numel()) if logits.dtype == torch.float16 else 1.0
    ctx.mark_non_differentiable(slopes)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(slopes)


@once_differentiable
def _scaled_slopes(ctx, grad_loss: Tensor, _) -> tuple[Tensor | None, ...]:
    (slopes,) = ctx.saved_tensors
    _scale_(slopes, grad_loss, ctx.multiplier)
    return slopes, None, None, None


fused_soft_cross_entropy.register_autograd(_scaled_slopes, setup_context=_keep_slopes)


@triton.jit(do_not_specialize=['num_ids'])
def _token_kernel(
    logits,
    ids,
    excess,
    background,
    losses,
    slopes,
    num_tokens,
    num_ids,
    unit,
    STRIDE_IMAGE: tl.constexpr,  # constants, so that the compiler can vectorise loads
    STRIDE_TOKEN: tl.constexpr,
    STRIDE_CLASS: tl.constexpr,
    NUM_CLASSES: tl.constexpr,
    BLOCK: tl.constexpr,
    IDS_BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    logits += token // num_tokens * STRIDE_IMAGE + token % num_tokens * STRIDE_TOKEN
    slopes += token * NUM_CLASSES
    ids += token * num_ids
    excess += token * num_ids
    classes = tl.arange(0, BLOCK)
    places = tl.arange(0, IDS_BLOCK)
    used = places < num_ids
    own_id = tl.load(ids + places, mask=used, other=0)
    # An id out of range would address memory of another tensor. It makes loss and slopes NaN instead.
    inside = used & (own_id >= 0) & (own_id < NUM_CLASSES)
    own_x = tl.load(logits + own_id * STRIDE_CLASS, mask=inside, other=0).to(tl.float32)
    own_e = tl.load(excess + places, mask=used, other=0).to(tl.float32)
    b = tl.load(background + token).to(tl.float32)
    total = tl.sum(own_e, 0) + NUM_CLASSES * b
    num_astray = tl.sum((used & (inside == 0)).to(tl.int32), 0)
    total = tl.where(num_astray > 0, float('nan'), total)

    # With a single block, the compiler unrolls both loops and reads the logits once.
    top = tl.full((), float('-inf'), tl.float32)
    exps = tl.full((), 0, tl.float32)
    sum_x = tl.full((), 0, tl.float32)
    for start in range(0, NUM_CLASSES, BLOCK):
        at = (start + classes).to(tl.int64)
        x = tl.load(logits + at * STRIDE_CLASS, mask=at < NUM_CLASSES, other=float('-inf')).to(tl.float32)
        new_top = tl.maximum(top, tl.max(x, 0))
        exps = exps * tl.exp(top - new_top) + tl.sum(tl.exp(x - new_top), 0)
        sum_x += tl.sum(tl.where(at < NUM_CLASSES, x, 0), 0)
        top = new_top
    lse = top + tl.log(exps)
    for start in range(0, NUM_CLASSES, BLOCK):
        at = (start + classes).to(tl.int64)
        x = tl.load(logits + at * STRIDE_CLASS, mask=at < NUM_CLASSES, other=float('-inf')).to(tl.float32)
        slope = (total * tl.exp(x - lse) - b) * unit
        tl.store(slopes + at, slope.to(slopes.dtype.element_ty), mask=at < NUM_CLASSES)
    tl.store(losses + token, total * lse - b * sum_x - tl.sum(own_e * own_x, 0))

    # Entries of equal ids all get the sum of their excesses and write the same slope, so their order does not matter.
    summed = tl.zeros((IDS_BLOCK,), tl.float32)
    for start in range(0, num_ids, 16):
        other_places = start + tl.arange(0, 16)
        other_id = tl.load(ids + other_places, mask=other_places < num_ids, other=-1)
        other_e = tl.load(excess + other_places, mask=other_places < num_ids, other=0).to(tl.float32)
        summed += tl.sum(tl.where(own_id[:, None] == other_id[None, :], other_e[None, :], 0.0), 1)
    slope = (total * tl.exp(own_x - lse) - b - summed) * unit
    tl.debug_barrier()  # wait until other threads have written their slopes
    tl.store(slopes + own_id, slope.to(slopes.dtype.element_ty), mask=inside)


@triton.jit
def _scale_kernel(values, factor, multiplier, count, BLOCK: tl.constexpr):
    scale = tl.load(factor).to(tl.float32) * multiplier
    if scale != 1.0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(values + at, mask=at < count).to(tl.float32)
        tl.store(values + at, (value * scale).to(values.dtype.element_ty), mask=at < count)
