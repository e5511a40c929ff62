"""The token-label loss on dense targets, left to autograd."""

import torch
from torch import Tensor


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over all but the last axis of `-sum(target * log_softmax(logits))`."""
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def token_label_loss(
    cls_logits: Tensor,
    token_logits: Tensor,
    cls_target: Tensor,
    token_target: Tensor,
    lam: float = 1.0,
    label_target: Tensor | None = None,
    dense_weight: float = 1.0,
    cls_weight: float = 1.0,
) -> Tensor:
    """Loss of logits [B, C] and [B, N, C] on dense targets of these shapes.

    Args:
        cls_logits: [B, C].
        token_logits: [B, N, C].
        cls_target: [B, C].
        token_target: [B, N, C].
        lam: share of tokens kept by MixToken.
        label_target: smoothed one-hot image labels [B, C], mixed into the class token's target where given.
        dense_weight: weight of the token loss.
        cls_weight: weight of the class-token loss.
    """
    if label_target is not None:
        agree = cls_target.argmax(1) == label_target.argmax(1)
        r = torch.where(agree, 0.5, 0.9)[:, None].to(cls_target.dtype)
        cls_target = r * cls_target + (1 - r) * label_target
    mixed = lam * cls_target + (1 - lam) * cls_target.flip(0)
    return cls_weight * soft_cross_entropy(cls_logits, mixed) + dense_weight * soft_cross_entropy(
        token_logits, token_target
    )
