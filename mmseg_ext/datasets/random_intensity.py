"""Brightness and contrast at random, for images of any channels and range."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomIntensity(BaseTransform):
    """What `PhotoMetricDistortion` is to 8-bit RGB: `y = mean + contrast (x - mean) + brightness std`.

    Mean and standard deviation are each channel's over the image, so that the result does not depend on the range that
    a sensor has; all channels get the same two random numbers, so that their ratios tell the same.

    Args:
        brightness: The shift is drawn from [-brightness, brightness], in standard deviations. That of
            PhotoMetricDistortion, 32 of 255, is 0.5 of ImageNet's.
        contrast: The factor is drawn from [1 - contrast, 1 + contrast].
        prob: Of each of the two, in [0, 1].
    """

    def __init__(self, brightness: float = 0.5, contrast: float = 0.5, prob: float = 0.5) -> None:
        self.brightness, self.contrast, self.prob = brightness, contrast, prob

    @cache_randomness
    def _drawn(self) -> tuple[float, float]:
        shift = np.random.uniform(-self.brightness, self.brightness) if np.random.rand() < self.prob else 0.0
        factor = np.random.uniform(1 - self.contrast, 1 + self.contrast) if np.random.rand() < self.prob else 1.0
        return shift, factor

    def transform(self, results: dict) -> dict:
        """Changes `img`, [H, W] or [H, W, C], to float32."""
        image = results['img'].astype(np.float32)
        shift, factor = self._drawn()
        mean, std = image.mean((0, 1)), image.std((0, 1))
        results['img'] = (factor * image + ((1 - factor) * mean + shift * std)).astype(np.float32)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(brightness={self.brightness}, contrast={self.contrast}, prob={self.prob})'
