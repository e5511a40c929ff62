"""timm's photometric operations on a batch of images, on the device that holds it.

A loader may choose operations without applying them (`TrainTransform(defer_photometric=True)`). Each kind of operation
is then applied here at once to all images that it fell to: no loop over images, and nothing is read back from the
device, for the choices stay on the host. Grey levels are those of Pillow, to within one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

# What of the batch an operation changes (uint8 [b, 3, H, W]), its argument for each (float32 [b, 1, 1, 1]) -> result.
Operation = Callable[[Tensor, Tensor], Tensor]


def encode_choices(chosen: Sequence[tuple[str, float]], length: int) -> Tensor:
    """What `apply_choices` reads: (number of the operation, argument) in order of application, [length, 2] float32.

    Args:
        chosen: timm's names of at most `length` operations, with their arguments (0 for those that take none).
        length: rows of the result; those without an operation are 0.
    """
    rows = [(NUMBERS[name], argument) for name, argument in chosen]
    return torch.tensor(rows + [(0, 0)] * (length - len(rows)), dtype=torch.float32).view(length, 2)


def apply_choices(images: Tensor, choices: Tensor) -> Tensor:
    """Applies to each image what was chosen for it.

    Args:
        images: uint8 [B, 3, H, W], RGB, on any device.
        choices: float32 [B, length, 2] on the host, rows of `encode_choices`.

    Returns:
        uint8 [B, 3, H, W], another tensor.
    """
    images = images.clone()
    for numbers, arguments in (layer.unbind(1) for layer in choices.unbind(1)):
        for number, operation in enumerate(OPERATIONS.values(), start=1):
            rows = (numbers == number).nonzero().flatten()
            if len(rows):
                argument = arguments[rows].view(-1, 1, 1, 1).to(images.device, non_blocking=True)
                rows = rows.to(images.device, non_blocking=True)
                images.index_copy_(0, rows, operation(images.index_select(0, rows), argument).to(torch.uint8))
    return images


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
    shift = (8 - bits.clamp(1, 8)).to(torch.uint8)
    return (images >> shift) << shift


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images < threshold, images, 255 - images)


def _solarize_add(images: Tensor, addition: Tensor) -> Tensor:
    """Lightens the darker half."""
    return torch.where(images < 128, (images + addition).clamp(max=255), images)


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
    return (other + factor * (images - other)).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    """Luminance in Pillow's integer arithmetic, int32 [b, 1, H, W]."""
    red, green, blue = images.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


# By timm's names. Their numbers are those of this order, from 1.
OPERATIONS: dict[str, Operation] = {
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
