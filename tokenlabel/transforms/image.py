"""Image augmentations that return the image together with its View, the part of the source image that it shows.

Each augmentation takes a Pillow image and its View, and returns both. For the same seeds of the global generators of
`random`, NumPy and torch, the pixels equal those of timm's own training and evaluation transforms: crop, flip,
RandAugment. `TrainTransform(draft=True)` draws the same augmentations but computes slightly different pixels.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling
from timm.data.auto_augment import AugmentOp, RandAugment, posterize, rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation, ResizeKeepRatio
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import ColorJitter, InterpolationMode
from torchvision.transforms import functional as F

from tokenlabel.argument_checks import Ascending, NonNegative, Positive, Probability, Share, Size, checked
from tokenlabel.errors import UserError
from tokenlabel.image_files.reading import MAX_PIXELS, decode, rgb_pixels
from tokenlabel.image_files.unreadable import UnreadableImage
from tokenlabel.transforms import opencv_operations
from tokenlabel.transforms.opencv_operations import FILL
from tokenlabel.transforms.view import View

Viewed = tuple[Image.Image, View]

_RANDOM_INTERPOLATION = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)


class TrainTransform:
    """Random resized crop, flip, RandAugment: Pillow image, decoded or not -> (uint8 tensor [3, H, W], View).

    Args:
        size: output size in pixels, one number or (height, width).
        scale: range of the crop's area as a fraction of the image.
        ratio: range of the crop's width / height.
        hflip: probability of a mirrored image.
        auto_augment: timm's description of a RandAugment policy, such as 'rand-m9-mstd0.5-inc1'; None for none.
        color_jitter: strength of brightness, contrast and saturation jitter (and hue, as the fourth of a sequence);
            None for none. Unlike timm's it also applies after RandAugment.
        interpolation: of the crop: 'random' (bilinear or bicubic), or a name that timm knows.
        draft: use faster decoding, resizing and warping. JPEG files are decoded at a half, a quarter or an eighth of
            their size if the crop stays at least as large as the output. See `draft_crop`.

    Raises:
        UserError: an argument is out of range; also as `rand_augment`.
        OSError: on a call, the image is damaged.
    """

    @checked
    def __init__(
        self,
        size: Size,
        scale: Annotated[tuple[Share, Share], Ascending()] = (0.08, 1.0),
        ratio: Annotated[tuple[Positive, Positive], Ascending()] = (3 / 4, 4 / 3),
        hflip: Probability = 0.5,
        auto_augment: str | None = 'rand-m9-mstd0.5-inc1',
        color_jitter: NonNegative | Sequence[NonNegative] | None = None,
        interpolation: str = 'random',
        draft: bool = False,
    ):
        self.size = _height_width(size)
        self.scale = scale
        self.ratio = ratio
        self.hflip = hflip
        self.draft = draft
        self.rand_augment = None
        if auto_augment:
            self.rand_augment = rand_augment(auto_augment, min(self.size), interpolation, quick=draft)
        if isinstance(color_jitter, int | float):
            color_jitter = (color_jitter,) * 3
        self.color_jitter = None if color_jitter is None else ColorJitter(*color_jitter)
        self.interpolations = _RANDOM_INTERPOLATION if interpolation == 'random' else (_interpolation(interpolation),)

    def __call__(self, image: Image.Image) -> tuple[Tensor, View]:
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(image, self.scale, self.ratio)
        interpolation = self.interpolations[0] if len(self.interpolations) == 1 else random.choice(self.interpolations)
        if self.draft:
            viewed = draft_crop(image, View.identity(), top, left, height, width, self.size, interpolation)
        else:
            viewed = resized_crop(decode(image), View.identity(), top, left, height, width, self.size, interpolation)
        if self.hflip > 0 and torch.rand(1) < self.hflip:
            viewed = horizontal_flip(*viewed)
        if self.rand_augment is not None:
            viewed = self.rand_augment(viewed)
        image, view = viewed
        if self.color_jitter is not None:
            image = self.color_jitter(_as_pillow(image))
        return image if isinstance(image, Tensor) else F.pil_to_tensor(image), view


class EvalTransform:
    """Resize the shorter side, crop the centre, as timm evaluates: Pillow image -> (uint8 tensor [3, H, W], View).

    Args:
        size: output size in pixels, one number or (height, width).
        crop_pct: share of the resized image's shorter side that is kept, in (0, 1]: the side is resized to
            floor(size / crop_pct).
        interpolation: a name that timm knows, 'bicubic' or 'bilinear'.

    Raises:
        UserError: crop_pct is out of range, or the interpolation is unknown.
        UnreadableImage: on a call, the image is so elongated that resizing its shorter side would fill memory.
    """

    @checked
    def __init__(self, size: Size, crop_pct: Share = 0.9, interpolation: str = 'bicubic'):
        self.size = _height_width(size)
        self.resized = tuple(math.floor(side / crop_pct) for side in self.size)
        self.interpolation = _interpolation(interpolation)

    def __call__(self, image: Image.Image) -> tuple[Tensor, View]:
        if max(self.resized) ** 2 * max(image.size) > MAX_PIXELS * min(image.size):
            raise UnreadableImage(f'{image.width} x {image.height} pixels are too thin to resize', 'cut it to pieces')
        image = decode(image)
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


def draft_crop(
    image: Image.Image,
    view: View,
    top: int,
    left: int,
    height: int,
    width: int,
    size: tuple[int, int],
    interpolation: InterpolationMode,
) -> tuple[Tensor, View]:
    """A faster `resized_crop` of an image that need not be decoded yet: uint8 [3, height, width] and its View.

    A JPEG file is decoded at 1/s of its size, s = 2, 4 or 8, if the rectangle keeps at least `size` pixels. Pixel i of
    the reduced image covers the pixels [i s, (i + 1) s) of the full image, even if s does not divide its sides. The
    rectangle is therefore divided by s exactly. Its sides may then be fractions, and pixels just outside its border
    contribute too. Other files are decoded at full size and resized with torch's uint8 kernels: most pixels equal
    Pillow's, few differ by more than one grey level.

    Raises:
        OSError: the file is damaged.
    """
    whole_width, whole_height = image.size
    inner = View.crop(left / whole_width, top / whole_height, width / whole_width, height / whole_height)
    least = (math.ceil(whole_width * size[1] / width), math.ceil(whole_height * size[0] / height))
    drafted = image.draft(None, least)
    scale = drafted[1][2] / whole_width if drafted else 1
    if scale == 1 and interpolation in _RANDOM_INTERPOLATION:
        crop = torch.from_numpy(rgb_pixels(image))[None, top : top + height, left : left + width].permute(0, 3, 1, 2)
        return interpolate(crop, size, mode=interpolation.value, antialias=True)[0], view @ inner
    box = (left * scale, top * scale, (left + width) * scale, (top + height) * scale)
    resample = Resampling[interpolation.name]
    return F.pil_to_tensor(decode(image).resize((size[1], size[0]), resample, box=box)), view @ inner


def center_crop(image: Image.Image, view: View, height: int, width: int) -> Viewed:
    """Cuts out the central `height` x `width` pixels, rounded as in torchvision's `CenterCrop`."""
    top = round((image.height - height) / 2)
    left = round((image.width - width) / 2)
    inner = View.crop(left / image.width, top / image.height, width / image.width, height / image.height)
    return F.crop(image, top, left, height, width), view @ inner


def horizontal_flip(image: Image.Image | Tensor, view: View) -> tuple[Image.Image | Tensor, View]:
    """Mirrors left to right, a Pillow image or a tensor [3, H, W]."""
    return F.hflip(image), view @ View.flip()


def rand_augment(
    config: str,
    size: int,
    interpolation: str = 'random',
    transforms: str | list[str] | None = None,
    quick: bool = False,
) -> RandAugment:
    """timm's RandAugment over (image, View) pairs; images are Pillow images or uint8 tensors [3, H, W].

    timm's own classes choose the operations and magnitudes and change the pixels. Each operation's function is wrapped
    so that it updates the View. Posterising keeps at least one bit.

    Args:
        config: 'rand' and sections such as m9, n2, p0.5, mstd0.5, mmax10, inc1, tweights, joined by dashes.
        size: shorter side of the images in pixels (timm's unit for absolute translation).
        interpolation: 'random' (bilinear or bicubic), or a name that timm knows.
        transforms: names of timm's operations, or of a set of them; None for the set that `config` names.
        quick: run some operations with `opencv_operations`.

    Returns:
        A callable `(image, View) -> (image, View)` that takes and returns one tuple.

    Raises:
        UserError: the policy is not RandAugment, a section or the interpolation is unknown, or an operation has an
            unknown geometry.
    """
    if not re.fullmatch(r'rand(-((m|n|mmax|inc)\d+|(p|mstd)\d*\.?\d+|t[a-z0-9]+))*', config):
        raise UserError(
            f"auto_augment {config!r} is not a RandAugment policy: write 'rand' and sections such as m9, n2, p0.5, "
            "mstd0.5, mmax10, inc1 or tweights after it, as in 'rand-m9-mstd0.5-inc1'."
        )
    hparams = {
        'translate_const': int(size * 0.45),
        'img_mean': FILL,
    }
    if interpolation != 'random':
        hparams['interpolation'] = Resampling[_interpolation(interpolation).name]
    policy = rand_augment_transform(config, hparams, transforms)
    for op in policy.ops:
        op.aug_fn = _Tracked(op, quick)
    return policy


class _Tracked:
    """One operation of timm over (image, View) pairs."""

    def __init__(self, op: AugmentOp, quick: bool):
        if op.name not in _GEOMETRIC and op.name not in _PHOTOMETRIC:
            raise UserError(f'auto_augment uses {op.name}, whose geometry is unknown: leave it out of the policy.')
        self.name = op.name
        self.pixels = _posterize if op.aug_fn is posterize else op.aug_fn
        self.geometry = _GEOMETRIC.get(op.name)
        self.quick = quick

    def __call__(self, viewed: Viewed, *args, resample: Resampling | tuple[Resampling, ...], **kwargs) -> Viewed:
        image, view = viewed
        quick = opencv_operations.PHOTOMETRIC.get(self.name) if self.quick else None
        if self.geometry is not None:
            size = F.get_image_size(image)
            matrix = self.geometry(*args, *size)
            view = view @ View.pixel_affine(matrix, size)
            kwargs['resample'] = _one_of(resample)
            if self.quick and kwargs['resample'] in opencv_operations.INTERPOLATIONS:
                quick, args = opencv_operations.warp, (matrix, kwargs['resample'])
        if quick is None:
            return self.pixels(_as_pillow(image), *args, **kwargs), view
        return torch.from_numpy(quick(_as_array(image), *args)).permute(2, 0, 1), view


def _as_pillow(image: Image.Image | Tensor) -> Image.Image:
    return F.to_pil_image(image) if isinstance(image, Tensor) else image


def _as_array(image: Image.Image | Tensor) -> NDArray[np.uint8]:
    return image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else np.asarray(image)


def _one_of(resample: Resampling | tuple[Resampling, ...]) -> Resampling:
    """Draws an interpolation as timm does."""
    return random.choice(resample) if isinstance(resample, tuple) else resample


def _posterize(image: Image.Image, bits_to_keep: int, **kwargs) -> Image.Image:
    """Keeps at least one bit: timm's strongest level keeps none, which current Pillow refuses."""
    return posterize(image, max(1, bits_to_keep))


def _shear_x(factor: float, width: int, height: int) -> NDArray[np.float64]:
    return np.array([[1, factor, 0], [0, 1, 0]])


def _shear_y(factor: float, width: int, height: int) -> NDArray[np.float64]:
    return np.array([[1, 0, 0], [factor, 1, 0]])


def _translate(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1, 0, x], [0, 1, y]])


def _rotate(degrees: float, width: int, height: int) -> NDArray[np.float64]:
    """Rotates counter-clockwise about the image's centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([width / 2, height / 2])
    return np.column_stack([linear, middle - linear @ middle])


# Pixel-coordinate matrices of timm's operations: (argument, width, height) -> [2, 3], source = matrix @ (x, y, 1).
_GEOMETRIC: dict[str, Callable[[float, int, int], NDArray[np.float64]]] = {
    'ShearX': _shear_x,
    'ShearY': _shear_y,
    'Rotate': _rotate,
    'TranslateX': lambda pixels, width, height: _translate(pixels, 0),
    'TranslateY': lambda pixels, width, height: _translate(0, pixels),
    'TranslateXRel': lambda share, width, height: _translate(share * width, 0),
    'TranslateYRel': lambda share, width, height: _translate(0, share * height),
}

# timm's operations that do not move pixels.
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
