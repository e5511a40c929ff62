"""The token-label loss on sparse targets.

`loss = cls_weight * H(class token, target) + dense_weight * mean over tokens of H(token, target)`, H being soft
cross-entropy (paper, equation 3). Dense targets and softmax outputs are never stored. The only tensor of the logits'
size is their gradient (`tokenlabel.objective.soft_cross_entropy`).
"""

import torch
from torch import Tensor

from tokenlabel.argument_checks import NonNegative, checked
from tokenlabel.models.token_logits import TokenLogits
from tokenlabel.objective.soft_cross_entropy import soft_cross_entropy
from tokenlabel.objective.targets import SparseTarget, TokenTargets, check_labels
from tokenlabel.transforms.mix_token import kept_share


class TokenLabelLoss:
    """Soft cross-entropy of the class token and of every patch token.

    With MixToken, the class token's target is mixed with that of the reversed batch by the share of tokens that each
    image keeps. The model has already put the box of token logits back.

    Args:
        dense_weight: weight of the token loss; 0 trains the class token alone.
        cls_weight: weight of the class-token loss.
        ground_truth: mix the image label into the class token's target, `r map + (1 - r) label`, r = 0.5 where the
            map's best class is the label and 0.9 elsewhere (as the release computes it).
        fused: on CUDA, compute the loss and its gradient with a Triton kernel where that is faster.
        in_place: without the kernel, overwrite the logits with their gradient in the backward pass.

    Raises:
        UserError: a weight that is negative or not finite.
    """

    @checked
    def __init__(
        self,
        dense_weight: NonNegative = 1.0,
        cls_weight: NonNegative = 1.0,
        ground_truth: bool = False,
        fused: bool = True,
        in_place: bool = False,
    ):
        self.dense_weight = dense_weight
        self.cls_weight = cls_weight
        self.ground_truth = ground_truth
        self.fused = fused
        self.in_place = in_place

    def __call__(self, logits: TokenLogits, targets: TokenTargets, labels: Tensor | None = None) -> Tensor:
        """The weighted sum of both losses, a float32 scalar; arguments as in `parts`."""
        return sum(self.parts(logits, targets, labels).values())

    def parts(self, logits: TokenLogits, targets: TokenTargets, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted losses one by one.

        Args:
            logits: a model's output in training, of any floating dtype; the loss runs in at least float32.
            targets: targets of the same images before MixToken.
            labels: int64 [B], image labels; needed with `ground_truth`.

        Returns:
            `loss_cls` and, unless `dense_weight` is 0, `loss_tokens`: scalars whose sum is the loss.

        Raises:
            ValueError: labels, token logits or token targets are needed but missing.
            UserError: a label is outside [0, C) (checked on CPU only).
        """
        target = targets.cls
        if self.ground_truth:
            if labels is None:
                raise ValueError('ground_truth=True mixes image labels into the target: pass them as labels=.')
            check_labels(labels, target.num_classes)
            target = _with_label(target, labels, targets.smoothing)
        if logits.mix_box is not None:
            target = target.mixed(kept_share(logits.mix_box, logits.grid, logits.cls.device))
        losses = {'loss_cls': self.cls_weight * self._cross_entropy(logits.cls[:, None], target)}
        if self.dense_weight:
            if logits.tokens is None or targets.tokens is None:
                what = 'logits: the model needs a token head' if logits.tokens is None else 'targets'
                raise ValueError(f'dense_weight is {self.dense_weight} but there are no token {what}; or set it to 0.')
            losses['loss_tokens'] = self.dense_weight * self._cross_entropy(logits.tokens, targets.tokens)
        return losses

    def _cross_entropy(self, logits: Tensor, target: SparseTarget) -> Tensor:
        return sparse_soft_cross_entropy(logits, target, self.fused, self.in_place)


def sparse_soft_cross_entropy(
    logits: Tensor, target: SparseTarget, fused: bool = True, in_place: bool = False
) -> Tensor:
    """Mean soft cross-entropy of `logits` [B, N, C] over B and N, a scalar of at least float32.

    `fused` and `in_place` are as in `TokenLabelLoss`.

    Raises:
        ValueError: the target has another batch size, grid or number of classes.
    """
    expected = [*target.background.shape, target.num_classes]
    if list(logits.shape) != expected:
        raise ValueError(f'Logits are {list(logits.shape)} [images, tokens, classes] but their targets are {expected}.')
    return soft_cross_entropy(logits, target.ids, target.excess, target.background, fused, in_place)


@torch.no_grad()
def token_accuracy(logits: Tensor, target: SparseTarget) -> Tensor:
    """Share of tokens whose best class is that of their target: `logits` [B, N, C] -> a scalar in [0, 1]."""
    return (logits.argmax(-1) == target.best()).float().mean()


def _with_label(target: SparseTarget, labels: Tensor, smoothing: float) -> SparseTarget:
    """The class-token target `r map + (1 - r) smoothed one-hot`."""
    r = torch.where(target.best()[..., None] == labels[:, None, None], 0.5, 0.9).to(target.excess.dtype)
    return SparseTarget(
        ids=torch.cat([target.ids, labels[:, None, None]], -1),
        excess=torch.cat([target.excess * r, (1 - smoothing) * (1 - r)], -1),
        background=target.background * r[..., 0] + smoothing / target.num_classes * (1 - r[..., 0]),
        num_classes=target.num_classes,
    )
