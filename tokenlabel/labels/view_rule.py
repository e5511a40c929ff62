"""View rules: the part of an image that an annotator sees, and so the part that its score map covers.

A rule turns an image into the annotator's square input. It computes the View of the map from the image's width and
height alone. A store records the rule and each image's size, so every map's View is known exactly.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from tokenlabel.errors import UserError
from tokenlabel.transforms.image import EvalTransform
from tokenlabel.transforms.view import View

BICUBIC = Image.Resampling.BICUBIC
MAX_SIZE = 2**16  # pixels
MIN_CROP = 0.01


class ViewRule(Protocol):
    """Interface of view rules. `size` is the side of the annotator's square input in pixels."""

    name: ClassVar[str]
    size: int

    def pixels(self, image: Image.Image) -> Tensor:
        """The annotator's input of a Pillow RGB image, uint8 [3, size, size]."""

    def view(self, width: int, height: int) -> View:
        """Map from the annotator's input to a source image of `width` x `height` pixels."""

    def settle(self, maps: Tensor, sizes: Tensor) -> Tensor:
        """Correct maps [B, k, S, S] of images of `sizes` [B, 2] (width, height) where the input shows padding."""


@dataclass(frozen=True)
class Squash:
    """The whole image, resized to a square without keeping its aspect ratio."""

    name: ClassVar[str] = 'squash'
    size: int

    def __post_init__(self) -> None:
        _check_size(self)

    def pixels(self, image: Image.Image) -> Tensor:
        return F.pil_to_tensor(image.resize((self.size, self.size), BICUBIC))

    def view(self, width: int, height: int) -> View:
        return View.identity()

    def settle(self, maps: Tensor, sizes: Tensor) -> Tensor:
        return maps


@dataclass(frozen=True)
class CenterCrop:
    """The central square, as timm evaluates: shorter side resized to floor(size / crop_pct), then cropped to `size`."""

    name: ClassVar[str] = 'center-crop'
    size: int
    crop_pct: float = 1.0

    def __post_init__(self) -> None:
        _check_size(self)
        number = isinstance(self.crop_pct, int | float) and not isinstance(self.crop_pct, bool)
        if not number or not MIN_CROP <= self.crop_pct <= 1:
            raise UserError(f'View rule {self.name} has the crop_pct {self.crop_pct!r}: give {MIN_CROP} to 1.')

    def pixels(self, image: Image.Image) -> Tensor:
        return EvalTransform(self.size, self.crop_pct)(image)[0]

    def view(self, width: int, height: int) -> View:
        short = math.floor(self.size / self.crop_pct)
        # whole pixels, rounded as torchvision's resize and centre crop round
        resized = [short, int(short * max(width, height) / min(width, height))]
        resized_width, resized_height = resized if width <= height else resized[::-1]
        left, top = round((resized_width - self.size) / 2), round((resized_height - self.size) / 2)
        return View.crop(
            left / resized_width, top / resized_height, self.size / resized_width, self.size / resized_height
        )

    def settle(self, maps: Tensor, sizes: Tensor) -> Tensor:
        return maps


@dataclass(frozen=True)
class Native:
    """The whole image with its aspect ratio: longer side resized to `size`, padded to a square with one colour.

    A cell whose centre lies in the padding repeats the nearest cell whose centre lies in the image. Scores of the
    padding therefore never reach a target.

    Args:
        size: side of the square in pixels.
        fill: (red, green, blue) of the padding, 0 to 255; the annotator's mean colour becomes zeros in its input.
    """

    name: ClassVar[str] = 'native'
    size: int
    fill: tuple[int, int, int] = (124, 116, 104)

    def __post_init__(self) -> None:
        _check_size(self)
        channels = self.fill if isinstance(self.fill, list | tuple) else ()
        if len(channels) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in channels):
            raise UserError(f'View rule {self.name} has the fill {self.fill!r}: give three whole numbers to 255.')

    def pixels(self, image: Image.Image) -> Tensor:
        left, top, width, height = self.placement(*image.size)
        square = Image.new('RGB', (self.size, self.size), tuple(self.fill))
        square.paste(image.resize((width, height), BICUBIC), (left, top))
        return F.pil_to_tensor(square)

    def view(self, width: int, height: int) -> View:
        left, top, shown_width, shown_height = self.placement(width, height)
        return View.crop(-left / shown_width, -top / shown_height, self.size / shown_width, self.size / shown_height)

    def placement(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the image in the square, in pixels; the rest is padding."""
        longer = max(width, height)
        shown = [max(1, round(self.size * side / longer)) for side in (width, height)]
        return (self.size - shown[0]) // 2, (self.size - shown[1]) // 2, *shown

    def settle(self, maps: Tensor, sizes: Tensor) -> Tensor:
        side = maps.shape[-1]
        places = np.array([self.placement(*size) for size in sizes.tolist()])
        cols, rows = (torch.from_numpy(_cells_inside(places[:, [i, i + 2]], self.size, side)) for i in (0, 1))
        images = torch.arange(len(maps))[:, None, None]
        where = [index.to(maps.device) for index in (images, rows[:, :, None], cols[:, None, :])]
        return maps.permute(0, 2, 3, 1)[*where].permute(0, 3, 1, 2).contiguous()


RULES = {rule.name: rule for rule in (Squash, CenterCrop, Native)}


def view_rule(record: dict[str, Any]) -> ViewRule:
    """The rule that a store's `meta.json` records by its name, `rule`, and its arguments.

    Raises:
        UserError: the rule is unknown, or an argument is unknown or out of range.
    """
    arguments = {name: value for name, value in record.items() if name != 'rule'}
    name = record.get('rule')
    if not isinstance(name, str) or name not in RULES:
        raise UserError(f'View rule {name!r} is unknown: it is one of {", ".join(RULES)}.')
    try:
        return RULES[name](**arguments)
    except TypeError as error:
        raise UserError(f'View rule {name} does not take {", ".join(arguments) or "no size"}.') from error


def rule_record(rule: ViewRule) -> dict[str, Any]:
    """The record of a rule in a store's `meta.json`."""
    return {'rule': rule.name} | asdict(rule)


def _check_size(rule: ViewRule) -> None:
    if type(rule.size) is not int or not 1 <= rule.size <= MAX_SIZE:
        raise UserError(f'View rule {rule.name} has the size {rule.size!r}: give whole pixels from 1 to {MAX_SIZE}.')


def _cells_inside(spans: np.ndarray, size: int, side: int) -> np.ndarray:
    """For each cell, the nearest cell with its centre in the pixel span (begin, length): [B, 2] to [B, side]."""
    begin, length = spans[:, :1], spans[:, 1:]
    centres = (np.arange(side) + 0.5) * size / side
    inside = (centres >= begin) & (centres < begin + length)
    first, last = inside.argmax(1), side - 1 - inside[:, ::-1].argmax(1)
    # an image thinner than a cell may contain no centre: use the cell at its middle
    middle = ((begin + length / 2)[:, 0] * side / size).astype(np.int64).clip(0, side - 1)
    none = ~inside.any(1)
    first, last = np.where(none, middle, first), np.where(none, middle, last)
    return np.arange(side)[None].clip(first[:, None], last[:, None])
