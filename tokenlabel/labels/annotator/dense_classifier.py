"""Any image classifier of timm, read out at every location of its feature map."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tokenlabel.errors import UserError


class DenseClassifier(nn.Module):
    """Logits of a classifier at every location: what its head says when one location is all there is to pool.

    timm's classifiers are `forward_head(forward_features(images))`. The head pools the locations and then works on one
    vector, so each location is given to it as a feature map of its own, of one cell. Normalisation, hidden layers and
    convolutions after the pooling are thereby applied per location. In a token model the patch token also takes the
    places of the class token and of other prefix tokens. Where the head is linear after average pooling, the mean of
    the dense logits is the model's own output.

    A token head (LV-ViT, VOLO) answers for the tokens where the model's score uses it.

    The first call checks on its first image that this is faithful, and refuses the model otherwise: the head must treat
    all locations alike and have nothing but the feature map to go by, and the map must cover the image. What that comes
    to in each of timm's families is in `families.py`.

    Args:
        model: a timm classifier; put in evaluation mode.

    Attributes:
        features: `model.forward_features`; may be replaced by a compiled form of it.

    Raises:
        UserError: the model has no head, or no faithful dense form; the message says why.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for method in ('forward_features', 'forward_head'):
            if not hasattr(model, method):
                raise _refusal(model, f'it has no {method}')
        if not getattr(model, 'num_classes', 0):
            raise _refusal(model, 'it has no classes')
        self.model = model.eval()
        self.features: Callable[[Tensor], Tensor] = model.forward_features
        self.num_classes: int = model.num_classes
        self._checked = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C, S, S] float32 of square `images` [B, 3, H, H]; the head runs in float32 also under autocast."""
        return self.classify(images)[1]

    @torch.no_grad()
    def classify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own logits [B, C] of whole images and those per location as in `forward`, from the same features.

        Raises:
            ValueError: images that are not square.
            UserError: no faithful dense form.
        """
        if images.shape[-1] != images.shape[-2]:
            raise ValueError(f'Images of {images.shape[-1]}x{images.shape[-2]} pixels; the annotator takes squares.')
        features = self.features(images)
        if not isinstance(features, Tensor):
            raise _refusal(self.model, 'its features are not one feature map')
        with torch.autocast(images.device.type, enabled=False):
            features = features.float()
            layout = _layout(self.model, features)
            if not self._checked:
                self._check(images[:1])
                self._checked = True
            batch, side = len(images), layout.side
            token_logits = _token_logits(self.model, features)
            if token_logits is None:
                cells = layout.cells(features).flatten(0, 1)
                token_logits = self.model.forward_head(layout.as_maps(cells)).unflatten(0, (batch, side * side))
            return self.model.forward_head(features), token_logits.transpose(1, 2).unflatten(2, (side, side))

    def _check(self, image: Tensor) -> None:
        """Refuse a model whose head is not a function of the pooled features; tried on one image, in float32."""
        features = self.model.forward_features(image)
        layout = _layout(self.model, features)
        _check_cover(self.model, layout, image.shape[-1])
        if _token_logits(self.model, features) is not None:
            return
        own = self.model.forward_head(features)
        if own.shape != (1, self.num_classes):
            raise _refusal(self.model, 'its head does not give one vector of class scores')
        if not own.isfinite().all():
            raise UserError(f'{model_name(self.model)} gives scores that are not finite: check its weights.')
        if not _close(own, self.model(image)):
            raise _refusal(self.model, 'its output is more than its head applied to its features')
        cells = layout.cells(features)
        backwards = layout.with_cells(features, cells.flip(1))
        if not _close(own, self.model.forward_head(backwards)):
            raise _refusal(self.model, 'its head tells locations apart')
        one = layout.as_maps(cells[:, 0])
        everywhere = layout.as_maps(cells[:, 0], layout.side)
        if not _close(self.model.forward_head(one), self.model.forward_head(everywhere)):
            raise _refusal(self.model, 'its head depends on the number of locations')


class _Layout(NamedTuple):
    """How locations are laid out in features: `kind` NCHW, NHWC or tokens; `side` cells each way; prefix tokens."""

    kind: str
    side: int
    num_prefix: int

    def cells(self, features: Tensor) -> Tensor:
        """Vectors [B, S * S, D] of the locations, row by row."""
        if self.kind == 'tokens':
            return features[:, self.num_prefix :]
        if self.kind == 'NHWC':
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)

    def with_cells(self, features: Tensor, cells: Tensor) -> Tensor:
        """`features` with other vectors at the locations."""
        if self.kind == 'tokens':
            return torch.cat([features[:, : self.num_prefix], cells], dim=1)
        if self.kind == 'NHWC':
            return cells.reshape(features.shape)
        return cells.transpose(1, 2).reshape(features.shape)

    def as_maps(self, vectors: Tensor, side: int = 1) -> Tensor:
        """Features of `len(vectors)` images that consist of one vector [M, D] throughout, `side` cells each way."""
        if self.kind == 'tokens':
            return vectors[:, None].expand(-1, self.num_prefix + side * side, -1)
        if self.kind == 'NHWC':
            return vectors[:, None, None].expand(-1, side, side, -1)
        return vectors[:, :, None, None].expand(-1, -1, side, side)


def _layout(model: nn.Module, features: Tensor) -> _Layout:
    if features.ndim == 4:
        kind = 'NHWC' if getattr(model, 'output_fmt', 'NCHW') == 'NHWC' else 'NCHW'
        rows, columns = features.shape[1:3] if kind == 'NHWC' else features.shape[2:]
        if rows != columns:
            raise _refusal(model, f'its feature map is {rows}x{columns} for a square image')
        return _Layout(kind, rows, 0)
    if features.ndim != 3:
        raise _refusal(model, 'its features have no spatial layout')
    num_prefix = _num_prefix(model, features.shape[1])
    num_patches = features.shape[1] - num_prefix
    if num_patches <= 0:
        raise _refusal(model, 'its features are the class token alone')
    if not _is_square(num_patches):
        raise _refusal(model, f'its {num_patches} patch tokens are not a square grid')
    return _Layout('tokens', math.isqrt(num_patches), num_prefix)


def _num_prefix(model: nn.Module, num_tokens: int) -> int:
    """Class, distillation and register tokens in front of the patches; the model's word, else what makes a square."""
    if hasattr(model, 'num_prefix_tokens'):
        return model.num_prefix_tokens
    cls_token = getattr(model, 'cls_token', None)
    if cls_token is not None:
        return cls_token.shape[1]
    return int(not _is_square(num_tokens) and _is_square(num_tokens - 1))


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _check_cover(model: nn.Module, layout: _Layout, size: int) -> None:
    """Refuse a map that ends a cell or more before the image does, as convolutions without padding make it."""
    info = getattr(model, 'feature_info', None)
    cell = info[-1].get('reduction', 0) if isinstance(info, list) and info else 0
    if layout.kind == 'NCHW' and cell and size - layout.side * cell >= cell:
        raise _refusal(model, f'its convolutions have no padding and leave out the border of {size}x{size} pixels')


def _token_logits(model: nn.Module, features: Tensor) -> Tensor | None:
    """Logits [B, N, C] of a token head that takes part in the model's score; None where there is none."""
    if getattr(model, 'token_score_weight', 1.0) == 0 or not isinstance(getattr(model, 'aux_head', None), nn.Linear):
        return None
    if hasattr(model, 'token_logits'):
        return model.token_logits(features)
    return model.aux_head(features[:, 1:])


def _refusal(model: nn.Module, reason: str) -> UserError:
    return UserError(f'{model_name(model)} cannot annotate: {reason}, so there are no faithful scores per location.')


def model_name(model: nn.Module) -> str:
    """timm's name of the architecture, else that of the class."""
    return (getattr(model, 'pretrained_cfg', None) or {}).get('architecture') or type(model).__name__


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-3 * one.abs().max().clamp(min=1e-6))
