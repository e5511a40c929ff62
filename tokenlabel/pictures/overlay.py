"""Draws a segmentation over its image, with a legend beside it."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

INK, PAPER = (31, 41, 51), (255, 255, 255)
TEXT_SHARE, SMALLEST_TEXT, LARGEST_TEXT = 1 / 30, 12, 48  # of the image's height; pixels
MAX_NAME = 24  # characters


def painted(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, alpha: float, shown: np.ndarray) -> np.ndarray:
    """An image with its classes in colour; opaque pixels at class borders form an outline.

    Args:
        image: uint8 [H, W, 3].
        labels: integers [H, W]; pixels with other values than classes stay unchanged.
        palette: uint8 [C, 3].
        alpha: opacity of the colours, in [0, 1].
        shown: bool [C], the classes to paint.

    Returns:
        uint8 [H, W, 3].
    """
    # one extra entry for all labels that are not a class
    index = np.minimum(labels, len(palette))
    opacity = np.append(np.where(shown, alpha, 0.0), 0.0).astype(np.float32)
    colors = np.vstack([palette, PAPER]).astype(np.float32)
    weight = opacity[index]
    if alpha > 0:
        weight[_outline(labels) & (weight > 0)] = 1.0
    weight = weight[..., None]
    return np.rint(image * (1 - weight) + colors[index] * weight).astype(np.uint8)


def _outline(labels: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels whose right or lower neighbour has another label."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    return edge


class Legend:
    """Colours and names in columns, as a panel to the right of a picture.

    Args:
        height: height of the picture in pixels; the panel may be taller to fit its first column.
        num_rows: number of entries.
        texts: texts of all possible entries, for the width.
    """

    def __init__(self, height: int, num_rows: int, texts: Sequence[str]) -> None:
        self.text = round(min(max(height * TEXT_SHARE, SMALLEST_TEXT), LARGEST_TEXT))
        self.line = round(self.text * 1.5)
        self.font = _font(self.text)
        fitting = max((height - self.line) // self.line, 1)
        self.rows = max(min(fitting, num_rows), min(num_rows, 8))
        self.columns = -(-num_rows // self.rows) if num_rows else 0
        self.column_width = round(max(map(self.font.getlength, texts), default=0)) + 3 * self.text
        self.width = self.columns * self.column_width + self.text * bool(num_rows)
        self.height = max(height, self.rows * self.line + self.line)

    def beside(self, picture: np.ndarray, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> np.ndarray:
        """The picture with the panel: uint8 [max(H, panel), W + panel, 3].

        Args:
            picture: uint8 [H, W, 3].
            entries: names and RGB colours, most important first; entries that do not fit are left out.
        """
        height, width = picture.shape[:2]
        canvas = Image.new('RGB', (width + self.width, max(height, self.height)), PAPER)
        canvas.paste(Image.fromarray(picture), (0, 0))
        draw = ImageDraw.Draw(canvas)
        for number, (name, color) in enumerate(entries[: self.rows * self.columns]):
            column, row = divmod(number, self.rows)
            x, y = width + self.text + column * self.column_width, self.line // 2 + row * self.line
            draw.rectangle((x, y, x + self.text, y + self.text), fill=tuple(color))
            draw.text((x + 1.5 * self.text, y + self.text / 2), name, fill=INK, font=self.font, anchor='lm')
        return np.asarray(canvas)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's bundled font, which covers most scripts."""
    return ImageFont.truetype(findfont('DejaVu Sans'), size)


def short(name: str) -> str:
    """A class name shortened for a legend."""
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + '…'
