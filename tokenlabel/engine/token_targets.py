"""Training targets: one registered class per kind of target.

Each is called with a batch on the training device, the token grid and the number of classes, and returns
`TokenTargets`. `trains_tokens` says whether its targets train the token head, `needs_label_maps` whether it reads score
maps, `needs_image_labels` whether it reads image labels, and `k` how many scores per location it reads (None: all).
"""

from functools import cached_property
from typing import Any

import torch
from mmengine.registry import TASK_UTILS
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn import functional as F

from tokenlabel.argument_checks import Count, Positive, Rate, checked
from tokenlabel.data.sample import Batch
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import Annotator, load_annotator
from tokenlabel.objective.targets import Geometry, TokenTargets, distillation_targets, image_targets, token_targets
from tokenlabel.transforms.view import View


@TASK_UTILS.register_module()
class TokenLabels:
    """Token labeling: the annotator's scores at every token, and over the whole crop for the class token.

    Args:
        smoothing: label smoothing in [0, 1).
        geometry: 'exact', or 'released' to repeat how the release of 2021 reads its maps (axes exchanged).
        k: number of best scores per location to use; None uses all that the store keeps.
        temperature: divides the scores before the softmax; above 1 the targets are softer.
    """

    trains_tokens = True
    needs_label_maps = True
    needs_image_labels = False

    @checked
    def __init__(
        self,
        smoothing: Rate = 0.0,
        geometry: Geometry = 'exact',
        k: Count | None = None,
        temperature: Positive = 1.0,
    ) -> None:
        self.smoothing = smoothing
        self.geometry = geometry
        self.k = k
        self.temperature = temperature

    def __call__(self, batch: Batch, grid: tuple[int, int], num_classes: int) -> TokenTargets:
        return token_targets(
            batch['scores'],
            batch['classes'],
            batch['view'],
            grid,
            num_classes,
            smoothing=self.smoothing,
            map_view=batch['map_view'],
            geometry=self.geometry,
            k=self.k,
            temperature=self.temperature,
        )


@TASK_UTILS.register_module()
class AnnotatorTokenLabels:
    """Token labeling without a store: the annotator labels each augmented image just as the student sees it.

    Erased rectangles are included. The annotator runs every iteration, in bfloat16 on a GPU and in float32 on a CPU, so
    choose a small one. It is not part of the model: it is neither trained nor saved.

    Args:
        annotator: arguments of `tokenlabel.labels.annotator.load_annotator`, such as `name` and `checkpoint`. Where
            `size` is not the student's, the image is resized (bicubic, antialiased).
        smoothing: label smoothing in [0, 1).
        k: scores kept per location; all other classes score 0, as in a store.
        temperature: as in `TokenLabels`.
        mean, std: of the student's input, per channel, for pixels in [0, 1]; must equal those of its preprocessor.
    """

    trains_tokens = True
    needs_label_maps = False
    needs_image_labels = False

    @checked
    def __init__(
        self,
        annotator: dict[str, Any],
        smoothing: Rate = 0.0,
        k: Count = 5,
        temperature: Positive = 1.0,
        mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
        std: tuple[Positive, ...] = IMAGENET_DEFAULT_STD,
    ) -> None:
        self.arguments = annotator
        self.smoothing = smoothing
        self.k = k
        self.temperature = temperature
        self.mean, self.std = tuple(mean), tuple(std)
        self._device: torch.device | None = None

    @cached_property
    def annotator(self) -> Annotator:
        """The annotator, loaded on first access; evaluation never loads it."""
        annotator = load_annotator(**self.arguments)
        annotator.dense.eval().requires_grad_(False)
        return annotator

    @property
    def num_classes(self) -> int:
        return self.annotator.dense.num_classes

    def __deepcopy__(self, memo: dict) -> 'AnnotatorTokenLabels':
        """Returns itself: copies of the model, such as the EMA model, share the annotator."""
        return self

    def __call__(self, batch: Batch, grid: tuple[int, int], num_classes: int) -> TokenTargets:
        if self.num_classes > num_classes:
            raise UserError(
                f'The annotator has {self.num_classes} classes but the network {num_classes}: set '
                f'model.network.num_classes={self.num_classes}.'
            )
        scores, classes = self.score_maps(batch['image'])
        return token_targets(
            scores,
            classes,
            View.identity().tensor().repeat(len(scores), 1, 1),
            grid,
            num_classes,
            smoothing=self.smoothing,
            temperature=self.temperature,
        )

    @torch.no_grad()
    def score_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The k best scores and their classes, [B, k, S, S], for normalised `images` [B, 3, H, W] of the student."""
        dense, size = self.annotator.dense, self.annotator.size
        if self._device != images.device:
            self._move(images.device)
        mean, std, annotator_mean, annotator_std = self._normalisations
        pixels = images.float() * std + mean
        if pixels.shape[-2:] != (size, size):
            pixels = F.interpolate(pixels, (size, size), mode='bicubic', antialias=True)
        inputs = ((pixels - annotator_mean) / annotator_std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == 'cuda'):
            logits = dense(inputs)
        return logits.topk(min(self.k, self.num_classes), dim=1)

    def _move(self, device: torch.device) -> None:
        annotator = self.annotator
        annotator.dense.to(device, memory_format=torch.channels_last)
        self._normalisations = [
            torch.tensor(values, device=device).view(-1, 1, 1)
            for values in (self.mean, self.std, annotator.mean, annotator.std)
        ]
        self._device = device


@TASK_UTILS.register_module()
class ImageLabels:
    """Image labels, on the class token alone or copied to every token.

    Args:
        smoothing: label smoothing in [0, 1).
        on_tokens: copy the label to every token, as the released code does without label maps.
    """

    needs_label_maps = False
    needs_image_labels = True
    k = None

    @checked
    def __init__(self, smoothing: Rate = 0.0, on_tokens: bool = False) -> None:
        self.smoothing = smoothing
        self.trains_tokens = on_tokens

    def __call__(self, batch: Batch, grid: tuple[int, int], num_classes: int) -> TokenTargets:
        return image_targets(
            batch['label'], grid if self.trains_tokens else None, num_classes, smoothing=self.smoothing
        )


@TASK_UTILS.register_module()
class AnnotatorImageLabels:
    """Plain distillation: the annotator's soft label of the whole image, on the class token alone.

    Args:
        smoothing: label smoothing in [0, 1).
        k, temperature: as in `TokenLabels`.
    """

    trains_tokens = False
    needs_label_maps = True
    needs_image_labels = False

    @checked
    def __init__(self, smoothing: Rate = 0.0, k: Count | None = None, temperature: Positive = 1.0) -> None:
        self.smoothing = smoothing
        self.k = k
        self.temperature = temperature

    def __call__(self, batch: Batch, grid: tuple[int, int], num_classes: int) -> TokenTargets:
        return distillation_targets(
            batch['scores'],
            batch['classes'],
            num_classes,
            smoothing=self.smoothing,
            k=self.k,
            temperature=self.temperature,
        )
