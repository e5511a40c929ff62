"""Per-location logits of any timm image classifier."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tokenlabel.errors import UserError
from tokenlabel.models.locations import (
    NoLocations,
    check_cover,
    check_head,
    check_parts,
    close,
    layout_of,
    model_name,
)


class DenseClassifier(nn.Module):
    """Logits of a classifier at every location: the output of its head when it pools that location alone.

    timm's classifiers are `forward_head(forward_features(images))`. The head pools the locations to one vector, so each
    location is passed to it as a feature map of one cell. Normalisation, hidden layers and convolutions after the
    pooling are thereby applied per location. In a token model the patch token also replaces the class token and other
    prefix tokens. If the head is linear after average pooling, the mean of the dense logits equals the model's output.

    If the model's score uses a token head (LV-ViT, VOLO), that head gives the logits of the tokens.

    The first call checks on its first image that the dense logits are faithful: the head must treat all locations
    alike and depend on the feature map alone, and the map must cover the image. `families.py` lists the result for each
    of timm's families.

    Args:
        model: a timm classifier; put in evaluation mode.

    Attributes:
        features: `model.forward_features`; may be replaced by a compiled form of it.

    Raises:
        UserError: the model has no head, or its dense logits are not faithful; the message gives the reason.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        with _refused(model):
            check_parts(model)
        if not getattr(model, 'num_classes', 0):
            raise _refusal(model, 'it has no classes')
        self.model = model.eval()
        self.features: Callable[[Tensor], Tensor] = model.forward_features
        self.num_classes: int = model.num_classes
        self._checked = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 [B, C, S, S] of square `images` [B, 3, H, H]; under autocast too, the head runs in float32."""
        return self.classify(images)[1]

    @torch.no_grad()
    def classify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own logits [B, C] and the logits per location as in `forward`, from the same features.

        Raises:
            ValueError: the images are not square.
            UserError: the dense logits are not faithful.
        """
        if images.shape[-1] != images.shape[-2]:
            raise ValueError(f'Images of {images.shape[-1]}x{images.shape[-2]} pixels; the annotator takes squares.')
        features = self.features(images)
        with _refused(self.model):
            layout = layout_of(self.model, features, images.shape[-2:])
        with torch.autocast(images.device.type, enabled=False):
            features = features.float()
            if not self._checked:
                self._check(images[:1])
                self._checked = True
            batch, side = len(images), layout.rows
            token_logits = _token_logits(self.model, features)
            if token_logits is None:
                cells = layout.cells(features).flatten(0, 1)
                token_logits = self.model.forward_head(layout.as_maps(cells)).unflatten(0, (batch, side * side))
            return self.model.forward_head(features), token_logits.transpose(1, 2).unflatten(2, (side, side))

    def _check(self, image: Tensor) -> None:
        """Checks on one image, in float32, that the head is a function of the pooled features."""
        features = self.model.forward_features(image)
        with _refused(self.model):
            layout = layout_of(self.model, features, image.shape[-2:])
            check_cover(self.model, layout, image.shape[-2:])
        if _token_logits(self.model, features) is not None:
            return
        own = self.model.forward_head(features)
        if own.shape != (1, self.num_classes):
            raise _refusal(self.model, 'its head does not give one vector of class scores')
        if not own.isfinite().all():
            raise UserError(f'{model_name(self.model)} gives scores that are not finite: check its weights.')
        if not close(own, self.model(image)):
            raise _refusal(self.model, 'its output is more than its head applied to its features')
        with _refused(self.model):
            check_head(self.model.forward_head, features, layout)


def _token_logits(model: nn.Module, features: Tensor) -> Tensor | None:
    """Logits [B, N, C] of the token head if the model's score uses one, else None."""
    if getattr(model, 'token_score_weight', 1.0) == 0 or not isinstance(getattr(model, 'aux_head', None), nn.Linear):
        return None
    if hasattr(model, 'token_logits'):
        return model.token_logits(features)
    return model.aux_head(features[:, 1:])


@contextmanager
def _refused(model: nn.Module) -> Iterator[None]:
    """Turns `NoLocations` into a `UserError` about the annotator."""
    try:
        yield
    except NoLocations as error:
        raise _refusal(model, str(error)) from error


def _refusal(model: nn.Module, reason: str) -> UserError:
    return UserError(f'{model_name(model)} cannot annotate: {reason}, so there are no faithful scores per location.')
