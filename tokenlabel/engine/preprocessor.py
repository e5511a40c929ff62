"""uint8 batches from the loader -> normalised batches on the training device."""

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from tokenlabel.argument_checks import NonNegative, Positive, Probability, checked
from tokenlabel.errors import UserError
from tokenlabel.transforms.mix_images import draw_mix


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Moves a batch to the device and normalises its images there; in training it also augments them.

    The order is normalisation, random erasing, CutMix or Mixup. As in timm, mixing is sampled once per batch, and each
    image is mixed with the image at its position in the reversed batch.

    Args:
        mean: per channel, of images scaled to [0, 1].
        std: per channel, of images scaled to [0, 1].
        erasing: probability that an image has a rectangle replaced by per-pixel noise.
        cutmix: alpha of CutMix, 0 is off (usual: 1.0).
        mixup: alpha of Mixup, 0 is off (usual: 0.8).
        mix_prob: probability that a batch is mixed, where either is on.
        switch_prob: probability of CutMix where both are on.

    Attributes:
        class_counts: number of classes by batch key, `classes` or `label`, for the class ids that are checked.

    Raises:
        UserError: an argument out of its range, such as a negative alpha.
    """

    @checked
    def __init__(
        self,
        mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
        std: tuple[Positive, Positive, Positive] = IMAGENET_DEFAULT_STD,
        erasing: Probability = 0.0,
        cutmix: NonNegative = 0.0,
        mixup: NonNegative = 0.0,
        mix_prob: Probability = 1.0,
        switch_prob: Probability = 0.5,
    ) -> None:
        super().__init__(non_blocking=True)
        self.register_buffer('mean', 255 * torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer('std', 255 * torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.class_counts: dict[str, int] = {}
        self.erasing = erasing
        self.cutmix, self.mixup = cutmix, mixup
        self.mix_prob, self.switch_prob = mix_prob, switch_prob

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed in training."""
        return self.mix_prob > 0 and (self.cutmix > 0 or self.mixup > 0)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Batch dict with `image` uint8 [B, 3, H, W] -> the same with `image` float32, normalised.

        A mixed batch also holds its `ImageMix` as `mix`.

        Raises:
            UserError: a class id of a training batch is out of range. The check runs here, while the batch is on the
                CPU, to avoid a GPU synchronisation.
        """
        if not isinstance(data['image'], torch.Tensor):
            raise UserError(
                "The images of a batch are a list: set the dataloader's collate_fn=dict(type='default_collate')."
            )
        if training:
            for name, count in self.class_counts.items():
                _check_ids(name, data.get(name), count, data.get('index'))
        # views stay on the host, where score-map lookups are planned without a GPU synchronisation
        on_host = {name: data[name] for name in ('view', 'map_view', 'index') if name in data}
        batch = self.cast_data({name: value for name, value in data.items() if name not in on_host}) | on_host
        batch['image'] = (batch['image'].float() - self.mean) / self.std
        if training and self.erasing > 0:
            erase = RandomErasing(self.erasing, mode='pixel', device=batch['image'].device)
            batch['image'] = erase(batch['image'])
        if training and self.mixes and torch.rand(()).item() < self.mix_prob:
            batch['mix'] = draw_mix(tuple(batch['image'].shape[-2:]), self.cutmix, self.mixup, self.switch_prob)
            batch['image'] = batch['mix'].images(batch['image'])
        return {'batch': batch}


def _check_ids(name: str, ids: object, count: int, images: Tensor | None) -> None:
    if not isinstance(ids, Tensor) or ids.device.type != 'cpu' or not ids.numel():
        return
    low, high = (int(value) for value in ids.aminmax())
    if low < 0 or high >= count:
        row = int(((ids < 0) | (ids >= count)).reshape(len(ids), -1).any(1).nonzero()[0])
        which = f'image {row} of a batch' if images is None else f'image {int(images[row])}'
        raise UserError(
            f'The {name} of {which} of the training data name class {low if low < 0 else high}, but the network has '
            f'{count} classes: correct them, or set model.network.num_classes.'
        )
