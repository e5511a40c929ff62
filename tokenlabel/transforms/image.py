"""Image augmentations that return the image and the View of what it still shows.

Each augmentation takes a Pillow image and the View of that image over its source, and returns both. Pixels are those of
timm's own training and evaluation transforms for the same seeds: crop, flip, RandAugment, from the global generators of
`random`, NumPy and torch.
"""

import math
import random
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import AugmentOp, RandAugment, posterize, rand_augment_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN
from timm.data.transforms import RandomResizedCropAndInterpolation, ResizeKeepRatio
from torch import Tensor
from torchvision.transforms import ColorJitter, InterpolationMode
from torchvision.transforms import functional as F

from tokenlabel.errors import UserError
from tokenlabel.transforms.view import View

Viewed = tuple[Image.Image, View]

_RANDOM_INTERPOLATION = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)


class TrainTransform:
    """Random resized crop, flip, RandAugment: Pillow RGB image -> (uint8 tensor [3, H, W], View).

    Args:
        size: of the result in pixels, one number or (height, width).
        scale: range of the crop's area as a fraction of the image.
        ratio: range of the crop's width / height.
        hflip: probability of a mirrored image.
        auto_augment: timm's description of a RandAugment policy, such as 'rand-m9-mstd0.5-inc1'; None for none.
        color_jitter: strength of brightness, contrast and saturation jitter (and hue, as the fourth of a sequence);
            None for none. Unlike timm's it also applies after RandAugment.
        interpolation: of the crop: 'random' (bilinear or bicubic), or a name that timm knows.

    Raises:
        UserError: as `rand_augment`.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        hflip: float = 0.5,
        auto_augment: str | None = 'rand-m9-mstd0.5-inc1',
        color_jitter: float | Sequence[float] | None = None,
        interpolation: str = 'random',
    ):
        self.size = _height_width(size)
        self.scale = scale
        self.ratio = ratio
        self.hflip = hflip
        self.rand_augment = rand_augment(auto_augment, min(self.size), interpolation) if auto_augment else None
        if isinstance(color_jitter, int | float):
            color_jitter = (color_jitter,) * 3
        self.color_jitter = None if color_jitter is None else ColorJitter(*color_jitter)
        self.interpolations = _RANDOM_INTERPOLATION if interpolation == 'random' else (_interpolation(interpolation),)

    def __call__(self, image: Image.Image) -> tuple[Tensor, View]:
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(image, self.scale, self.ratio)
        interpolation = self.interpolations[0] if len(self.interpolations) == 1 else random.choice(self.interpolations)
        viewed = resized_crop(image, View.identity(), top, left, height, width, self.size, interpolation)
        if self.hflip > 0 and torch.rand(1) < self.hflip:
            viewed = horizontal_flip(*viewed)
        if self.rand_augment is not None:
            viewed = self.rand_augment(viewed)
        image, view = viewed
        if self.color_jitter is not None:
            image = self.color_jitter(image)
        return F.pil_to_tensor(image), view


class EvalTransform:
    """Resize the shorter side, crop the centre, as timm evaluates: Pillow RGB image -> (uint8 tensor [3, H, W], View).

    Args:
        size: of the result in pixels, one number or (height, width).
        crop_pct: share of the resized image's shorter side that is kept, in (0, 1]: the side is resized to
            floor(size / crop_pct).
        interpolation: a name that timm knows, 'bicubic' or 'bilinear'.

    Raises:
        UserError: crop_pct out of its range, or an unknown interpolation.
    """

    def __init__(self, size: int | Sequence[int], crop_pct: float = 0.9, interpolation: str = 'bicubic'):
        if not 0 < crop_pct <= 1:
            raise UserError(
                f'crop_pct is {crop_pct}: give the share of the image to evaluate on, above 0 and at most 1.'
            )
        self.size = _height_width(size)
        self.resized = tuple(math.floor(side / crop_pct) for side in self.size)
        self.interpolation = _interpolation(interpolation)

    def __call__(self, image: Image.Image) -> tuple[Tensor, View]:
        if self.resized[0] == self.resized[1]:
            image = F.resize(image, self.resized[0], self.interpolation)
        else:
            image = F.resize(image, ResizeKeepRatio.get_params(image, self.resized, longest=0.0), self.interpolation)
        image, view = center_crop(image, View.identity(), *self.size)
        return F.pil_to_tensor(image), view


def resized_crop(
    image: Image.Image,
    view: View,
    top: int,
    left: int,
    height: int,
    width: int,
    size: tuple[int, int],
    interpolation: InterpolationMode,
) -> Viewed:
    """Cuts out a rectangle given in pixels and resizes it to `size`, (height, width)."""
    inner = View.crop(left / image.width, top / image.height, width / image.width, height / image.height)
    return F.resized_crop(image, top, left, height, width, size, interpolation), view @ inner


def center_crop(image: Image.Image, view: View, height: int, width: int) -> Viewed:
    """Cuts out the middle; an odd remainder is rounded as torchvision's `CenterCrop` rounds it."""
    top = round((image.height - height) / 2)
    left = round((image.width - width) / 2)
    inner = View.crop(left / image.width, top / image.height, width / image.width, height / image.height)
    return F.crop(image, top, left, height, width), view @ inner


def horizontal_flip(image: Image.Image, view: View) -> Viewed:
    """Mirrors left to right."""
    return F.hflip(image), view @ View.flip()


def rand_augment(
    config: str, size: int, interpolation: str = 'random', transforms: str | list[str] | None = None
) -> RandAugment:
    """timm's RandAugment over (image, View) pairs.

    timm's classes choose operations and magnitudes and change the pixels, as they are; each operation's function is
    wrapped to carry the View along. Posterising keeps one bit at least.

    Args:
        config: 'rand' and sections such as m9, n2, p0.5, mstd0.5, mmax10, inc1, tweights, joined by dashes.
        size: shorter side of the images in pixels (timm's unit for absolute translation).
        interpolation: 'random' (bilinear or bicubic), or a name that timm knows.
        transforms: names of timm's operations, or of a set of them; None for the set that `config` says.

    Returns:
        A callable `(image, View) -> (image, View)` that takes and returns one tuple.

    Raises:
        UserError: another kind of policy, a misspelt section, an unknown interpolation, or an operation whose geometry
            is not known here.
    """
    if not re.fullmatch(r'rand(-((m|n|mmax|inc)\d+|(p|mstd)\d*\.?\d+|t[a-z0-9]+))*', config):
        raise UserError(
            f"auto_augment {config!r} is no RandAugment policy: write 'rand' and sections such as m9, n2, p0.5, "
            "mstd0.5, mmax10, inc1 or tweights after it, as in 'rand-m9-mstd0.5-inc1'."
        )
    hparams = {
        'translate_const': int(size * 0.45),
        'img_mean': tuple(min(255, round(255 * value)) for value in IMAGENET_DEFAULT_MEAN),
    }
    if interpolation != 'random':
        hparams['interpolation'] = Image.Resampling[_interpolation(interpolation).name]
    policy = rand_augment_transform(config, hparams, transforms)
    for op in policy.ops:
        op.aug_fn = _Tracked(op)
    return policy


class _Tracked:
    """One operation of timm over (image, View) pairs."""

    def __init__(self, op: AugmentOp):
        if op.name not in _GEOMETRIC and op.name not in _PHOTOMETRIC:
            raise UserError(
                f'auto_augment uses {op.name}, whose geometry is not known here: leave it out of the policy.'
            )
        self.pixels = _posterize if op.aug_fn is posterize else op.aug_fn
        self.geometry = _GEOMETRIC.get(op.name)

    def __call__(self, viewed: Viewed, *args, **kwargs) -> Viewed:
        image, view = viewed
        if self.geometry is not None:
            matrix = self.geometry(*args, *image.size)
            view = view @ View.pixel_affine(matrix, image.size)
        return self.pixels(image, *args, **kwargs), view


def _posterize(image: Image.Image, bits_to_keep: int, **kwargs) -> Image.Image:
    """Keeps one bit at least: timm's strongest level asks for none, which current Pillow refuses."""
    return posterize(image, max(1, bits_to_keep))


def _shear_x(factor: float, width: int, height: int) -> NDArray[np.float64]:
    return np.array([[1, factor, 0], [0, 1, 0]])


def _shear_y(factor: float, width: int, height: int) -> NDArray[np.float64]:
    return np.array([[1, 0, 0], [factor, 1, 0]])


def _translate(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1, 0, x], [0, 1, y]])


def _rotate(degrees: float, width: int, height: int) -> NDArray[np.float64]:
    """Counter-clockwise about the image's middle."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([width / 2, height / 2])
    return np.column_stack([linear, middle - linear @ middle])


# What timm's operations do to pixel coordinates: (argument, width, height) -> [2, 3], source = matrix @ (x, y, 1).
_GEOMETRIC: dict[str, Callable[[float, int, int], NDArray[np.float64]]] = {
    'ShearX': _shear_x,
    'ShearY': _shear_y,
    'Rotate': _rotate,
    'TranslateX': lambda pixels, width, height: _translate(pixels, 0),
    'TranslateY': lambda pixels, width, height: _translate(0, pixels),
    'TranslateXRel': lambda share, width, height: _translate(share * width, 0),
    'TranslateYRel': lambda share, width, height: _translate(0, share * height),
}

# Those of timm's operations that leave every pixel where it is.
_PHOTOMETRIC = {'AutoContrast', 'Desaturate', 'Equalize', 'GaussianBlur', 'GaussianBlurRand', 'Invert', 'SolarizeAdd'}
_PHOTOMETRIC |= {'Posterize', 'PosterizeIncreasing', 'PosterizeOriginal', 'Solarize', 'SolarizeIncreasing'}
_PHOTOMETRIC |= {'Brightness', 'BrightnessIncreasing', 'Color', 'ColorIncreasing', 'Contrast', 'ContrastIncreasing'}
_PHOTOMETRIC |= {'Sharpness', 'SharpnessIncreasing'}


def _height_width(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _interpolation(name: str) -> InterpolationMode:
    try:
        return InterpolationMode(name)
    except ValueError:
        names = ', '.join(mode.value for mode in InterpolationMode)
        raise UserError(f'interpolation {name!r} is unknown: choose one of {names} (or random, in training).') from None
