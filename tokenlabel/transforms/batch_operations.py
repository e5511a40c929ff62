"""RandAugment's operations on a batch of images, on the device that holds it.

A loader may choose operations without applying them (`TrainTransform(defer_rand_augment=True)`). Each kind of operation
is then applied here at once to all images that it fell to: no loop over images, and nothing is read back from the
device, for the choices stay on the host. Grey levels are those of timm's operations by Pillow, to within one.
"""

from collections.abc import Callable, Sequence

import torch
from numpy.typing import ArrayLike
from timm.data.constants import IMAGENET_DEFAULT_MEAN
from torch import Tensor
from torch.nn.functional import avg_pool2d

# Images that an operation fell to (uint8 [b, 3, H, W]), its arguments for each (float64 [b, 6]) -> what they become.
Operation = Callable[[Tensor, Tensor], Tensor]

# What comes into view beyond an image's border.
FILL = tuple(round(255 * value) for value in IMAGENET_DEFAULT_MEAN)


def encode_operations(chosen: Sequence[tuple[str, ArrayLike]], length: int) -> Tensor:
    """What `apply_operations` reads: number of the operation and its arguments, in order of application.

    Args:
        chosen: at most `length` names in `OPERATIONS`, each with its arguments: those of `Bilinear` and `Bicubic` are
            a [2, 3] matrix, source = matrix @ (x, y, 1) in pixels from the image's corner; others have one or none.
        length: rows of the result; those without an operation are 0.

    Returns:
        float64 [length, 7].
    """
    rows = torch.zeros(length, 7, dtype=torch.float64)
    for row, (name, arguments) in zip(rows, chosen, strict=False):
        values = torch.as_tensor(arguments, dtype=torch.float64).flatten()
        row[0] = NUMBERS[name]
        row[1 : 1 + len(values)] = values
    return rows


def apply_operations(images: Tensor, operations: Tensor) -> Tensor:
    """Applies to each image what was chosen for it.

    Args:
        images: uint8 [B, 3, H, W], RGB, on any device.
        operations: float64 [B, length, 7] on the host, rows of `encode_operations`.

    Returns:
        uint8 [B, 3, H, W], another tensor.
    """
    images = images.clone()
    for layer in operations.unbind(1):
        for number, operation in enumerate(OPERATIONS.values(), start=1):
            rows = (layer[:, 0] == number).nonzero().flatten()
            if len(rows):
                arguments = layer[rows, 1:].to(images.device, non_blocking=True)
                rows = rows.to(images.device, non_blocking=True)
                images.index_copy_(0, rows, operation(images.index_select(0, rows), arguments).to(torch.uint8))
    return images


def _bilinear(images: Tensor, matrix: Tensor) -> Tensor:
    return _affine(images, matrix, lambda t: {0: 1 - t, 1: t})


def _bicubic(images: Tensor, matrix: Tensor) -> Tensor:
    """Pillow's cubic: its slope at a pixel is the difference of the two neighbours."""
    return _affine(
        images,
        matrix,
        lambda t: {-1: -t * (1 - t) ** 2, 0: (1 - t) * (1 + t - t**2), 1: t * (1 + t - t**2), 2: -(t**2) * (1 - t)},
    )


def _affine(images: Tensor, matrix: Tensor, weigh: Callable[[Tensor], dict[int, Tensor]]) -> Tensor:
    """Pixels of the images at the places that the matrix names.

    Args:
        images: uint8 [b, 3, H, W].
        matrix: float64 [b, 6].
        weigh: places between two pixels, 0 to 1 -> offset of a pixel from the first of the two -> its weight there.
    """
    height, width = images.shape[2:]
    y, x = (torch.arange(side, dtype=torch.float64, device=images.device) + 0.5 for side in (height, width))
    places = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width), torch.ones_like(x).expand(height, -1)])
    source = matrix.view(-1, 2, 3) @ places.flatten(1)
    (x, in_x), (y, in_y) = (
        (place - 0.5, (place >= 0) & (place < side))
        for place, side in zip(source.unbind(1), (width, height), strict=True)
    )
    column, row = x.floor(), y.floor()
    pixels, result = images.flatten(2), 0
    for down, row_weight in weigh((y - row).float()).items():
        begin = (row + down).clamp(0, height - 1) * width
        for right, weight in weigh((x - column).float()).items():
            index = (begin + (column + right).clamp(0, width - 1)).long()
            result = result + (row_weight * weight)[:, None] * pixels.gather(2, index[:, None].expand(-1, 3, -1))
    fill = torch.tensor(FILL, dtype=torch.float32).view(3, 1).to(images.device, non_blocking=True)
    return torch.where((in_x & in_y)[:, None], result.clamp(0, 255), fill).view_as(images)


def _auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    """The darkest level of each channel becomes 0 and the lightest 255."""
    low, high = images.amin((2, 3), keepdim=True).int(), images.amax((2, 3), keepdim=True).int()
    stretched = (images - low) * 255 // (high - low).clamp(min=1)
    return torch.where(high > low, stretched, images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    """Levels of each channel become equally frequent, in Pillow's integer arithmetic."""
    levels = images.flatten(2).long()
    one = levels.new_ones(1, 1, 1)
    counts = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, one.expand_as(levels))
    most = levels.amax(2, keepdim=True)
    step = (levels.shape[2] - counts.gather(2, most)) // 255
    below = counts.cumsum(2) - counts
    table = torch.where(step > 0, (step // 2 + below) // step.clamp(min=1), torch.arange(256, device=images.device))
    return table.clamp(max=255).gather(2, levels).view_as(images)


def _invert(images: Tensor, _: Tensor) -> Tensor:
    return 255 - images


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keeps the highest bits, one at least."""
    shift = (8 - _first(bits).clamp(1, 8)).to(torch.uint8)
    return (images >> shift) << shift


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images < _first(threshold), images, 255 - images)


def _solarize_add(images: Tensor, addition: Tensor) -> Tensor:
    """Lightens the darker half."""
    return torch.where(images < 128, (images + _first(addition)).clamp(max=255), images)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images), images, factor)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(images).double().mean((2, 3), keepdim=True)
    return _blend((mean + 0.5).floor().float(), images, factor)


def _color(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(_grey(images), images, factor)


def _desaturate(images: Tensor, amount: Tensor) -> Tensor:
    return _color(images, (1 - amount).clamp(0, 1))


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the mean of 3 x 3 pixels, the middle one counted five times; the border stays."""
    pixels = images.float()
    smooth = pixels.clone()
    inner = smooth[..., 1:-1, 1:-1]
    inner.copy_(((9 * avg_pool2d(pixels, 3, stride=1) + 4 * inner) / 13 + 0.5).floor())
    return _blend(smooth, images, factor)


def _blend(other: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """`other` at the factor 0, `images` at 1; outside of this range beyond them. Rounded down, as Pillow does."""
    other = other.float()
    return (other + _first(factor) * (images - other)).clamp(0, 255)


def _first(arguments: Tensor) -> Tensor:
    """The single argument of operations that have one, float32 [b, 1, 1, 1]."""
    return arguments[:, :1, None, None].float()


def _grey(images: Tensor) -> Tensor:
    """Luminance in Pillow's integer arithmetic, int32 [b, 1, H, W]."""
    red, green, blue = images.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


# By timm's names, but for the two that all geometric ones are. Their numbers are those of this order, from 1.
OPERATIONS: dict[str, Operation] = {
    'Bilinear': _bilinear,
    'Bicubic': _bicubic,
    'AutoContrast': _auto_contrast,
    'Equalize': _equalize,
    'Invert': _invert,
    'Posterize': _posterize,
    'PosterizeIncreasing': _posterize,
    'PosterizeOriginal': _posterize,
    'Solarize': _solarize,
    'SolarizeIncreasing': _solarize,
    'SolarizeAdd': _solarize_add,
    'Brightness': _brightness,
    'BrightnessIncreasing': _brightness,
    'Contrast': _contrast,
    'ContrastIncreasing': _contrast,
    'Color': _color,
    'ColorIncreasing': _color,
    'Desaturate': _desaturate,
    'Sharpness': _sharpness,
    'SharpnessIncreasing': _sharpness,
}
NUMBERS = {name: number for number, name in enumerate(OPERATIONS, start=1)}
