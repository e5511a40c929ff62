"""uint8 batches from the loader -> normalised batches on the training device."""

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.random_erasing import RandomErasing

from tokenlabel.transforms.batch_operations import apply_operations


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Moves a batch to the device, applies the operations of RandAugment that the loader left to it (`operations`),
    normalises the images and, in training, erases random rectangles.

    Args:
        mean: per channel, of images scaled to [0, 1].
        std: per channel, of images scaled to [0, 1].
        erasing: probability that an image has a rectangle replaced by per-pixel noise.
    """

    def __init__(
        self,
        mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
        std: tuple[float, ...] = IMAGENET_DEFAULT_STD,
        erasing: float = 0.0,
    ) -> None:
        super().__init__(non_blocking=True)
        self.register_buffer('mean', 255 * torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer('std', 255 * torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.erasing = erasing

    def forward(self, data: dict, training: bool = False) -> dict:
        """Batch dict with `image` uint8 [B, 3, H, W] -> the same with `image` float32, normalised."""
        # Views stay behind: what is looked up in the score maps is planned on the host, without waiting for the device
        on_host = {name: data[name] for name in ('view', 'map_view', 'index', 'operations') if name in data}
        batch = self.cast_data({name: value for name, value in data.items() if name not in on_host}) | on_host
        if 'operations' in batch:
            batch['image'] = apply_operations(batch['image'], batch.pop('operations'))
        batch['image'] = (batch['image'].float() - self.mean) / self.std
        if training and self.erasing > 0:
            erase = RandomErasing(self.erasing, mode='pixel', device=batch['image'].device)
            batch['image'] = erase(batch['image'])
        return {'batch': batch}
