"""The token-label loss on sparse targets.

`loss = cls_weight * H(class token, target) + dense_weight * mean over tokens of H(token, target)`, H being soft
cross-entropy (paper, equation 3). With a target of total T, background b and excess e at a few class ids,

    H = T logsumexp(x) - b sum(x) - sum(e x[ids]),      dH/dx = T softmax(x) - b - scatter(e),

so neither a dense target nor a softmax is stored: beside the logits there is only their gradient.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tokenlabel.labels.targets import SparseTarget, TokenTargets
from tokenlabel.models.token_head import TokenLogits
from tokenlabel.transforms.mix_token import kept_share

# Logits in work at a time, in whole images: few enough to stay in the cache of a CPU, enough to fill a GPU.
_CPU_CHUNK = 2**18
_GPU_CHUNK = 2**22


class TokenLabelLoss:
    """Soft cross-entropy of the class token and of every patch token.

    Where MixToken exchanged a box, the class token's target is mixed with that of the reversed batch by the share of
    tokens that each image has in the mixture; token logits come with the box already put back.

    Args:
        dense_weight: weight of the token loss; 0 trains the class token alone.
        cls_weight: weight of the class-token loss.
        ground_truth: mix the image label into the class token's target, `r map + (1 - r) label`, r = 0.5 where the
            map's best class is the label and 0.9 elsewhere (as the release computes it).
    """

    def __init__(self, dense_weight: float = 1.0, cls_weight: float = 1.0, ground_truth: bool = False):
        self.dense_weight = dense_weight
        self.cls_weight = cls_weight
        self.ground_truth = ground_truth

    def __call__(self, logits: TokenLogits, targets: TokenTargets, labels: Tensor | None = None) -> Tensor:
        """The weighted sum of both losses, a float32 scalar; arguments as in `parts`."""
        return sum(self.parts(logits, targets, labels).values())

    def parts(self, logits: TokenLogits, targets: TokenTargets, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted losses one by one.

        Args:
            logits: a model's output in training, of any floating dtype; computed in float32 at least.
            targets: of the same images, not mixed.
            labels: int64 [B], image labels; wanted with `ground_truth`.

        Returns:
            `loss_cls` and, unless `dense_weight` is 0, `loss_tokens`: scalars whose sum is the loss.

        Raises:
            ValueError: labels, token logits or token targets that the configuration asks for are missing.
        """
        target = targets.cls
        if self.ground_truth:
            if labels is None:
                raise ValueError('ground_truth=True mixes image labels into the target: pass them as labels=.')
            target = _with_label(target, labels, targets.smoothing)
        if logits.mix_box is not None:
            target = target.mixed(kept_share(logits.mix_box, logits.grid, logits.cls.device))
        losses = {'loss_cls': self.cls_weight * sparse_soft_cross_entropy(logits.cls[:, None], target)}
        if self.dense_weight:
            if logits.tokens is None or targets.tokens is None:
                what = 'logits: the model needs a token head' if logits.tokens is None else 'targets'
                raise ValueError(f'dense_weight is {self.dense_weight} but there are no token {what}; or set it to 0.')
            losses['loss_tokens'] = self.dense_weight * sparse_soft_cross_entropy(logits.tokens, targets.tokens)
        return losses


def sparse_soft_cross_entropy(logits: Tensor, target: SparseTarget) -> Tensor:
    """Mean soft cross-entropy of `logits` [B, N, C] over B and N, a scalar of at least float32.

    Raises:
        ValueError: the target is of another batch, grid or number of classes.
    """
    wanted = [*target.background.shape, target.num_classes]
    if list(logits.shape) != wanted:
        raise ValueError(f'Logits are {list(logits.shape)} [images, tokens, classes] but their targets are {wanted}.')
    return _SparseSoftCrossEntropy.apply(logits, target.ids, target.excess, target.background, target.total())


class _SparseSoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, ids: Tensor, excess: Tensor, background: Tensor, total: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        lse = torch.empty(logits.shape[:2], dtype=dtype, device=logits.device)
        loss = torch.empty_like(lse)
        for part in _chunks(logits):
            x = logits[part].to(dtype)
            lse[part] = x.logsumexp(-1)
            at_ids = (x.gather(-1, ids[part]) * excess[part]).sum(-1)
            loss[part] = total[part] * lse[part] - background[part] * x.sum(-1) - at_ids
        ctx.save_for_backward(logits, lse, ids, excess, background, total)
        return loss.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        logits, lse, ids, excess, background, total = ctx.saved_tensors
        scale = grad_output / lse.numel()
        grad = torch.empty_like(logits)
        for part in _chunks(logits):
            x = logits[part].to(lse.dtype)
            into = grad[part] if grad.dtype == x.dtype else torch.empty_like(x)
            softmax = torch.sub(x, lse[part][..., None], out=into).exp_()
            slope = softmax.mul_((total[part] * scale)[..., None]).sub_((background[part] * scale)[..., None])
            slope.scatter_add_(-1, ids[part], (excess[part] * -scale).to(slope.dtype))
            if grad.dtype != x.dtype:
                grad[part] = slope
        return grad, None, None, None, None


@torch.no_grad()
def token_accuracy(logits: Tensor, target: SparseTarget) -> Tensor:
    """Share of tokens, in [0, 1], whose best class is that of their target; `logits` [B, N, C] -> a scalar."""
    return (logits.argmax(-1) == target.best()).float().mean()


def _chunks(logits: Tensor) -> list[slice]:
    chunk = _CPU_CHUNK if logits.device.type == 'cpu' else _GPU_CHUNK
    step = max(1, chunk // max(1, logits.shape[1:].numel()))
    return [slice(start, start + step) for start in range(0, len(logits), step)]


def _with_label(target: SparseTarget, labels: Tensor, smoothing: float) -> SparseTarget:
    """The class-token target `r map + (1 - r) smoothed one-hot`."""
    r = torch.where(target.best()[..., None] == labels[:, None, None], 0.5, 0.9).to(target.excess.dtype)
    return SparseTarget(
        ids=torch.cat([target.ids, labels[:, None, None]], -1),
        excess=torch.cat([target.excess * r, (1 - smoothing) * (1 - r)], -1),
        background=target.background * r[..., 0] + smoothing / target.num_classes * (1 - r[..., 0]),
        num_classes=target.num_classes,
    )
