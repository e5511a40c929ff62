"""The segmentation of one image: labels, class areas and overlay."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tokenlabel.errors import UserError
from tokenlabel.files.output_checks import check_suffix
from tokenlabel.files.writing import write_atomically
from tokenlabel.pictures.overlay import Legend, painted, short


@dataclass(frozen=True)
class ClassArea:
    """The area of a class in an image.

    Attributes:
        label: number of the class.
        name: name of the class.
        pixels: number of its pixels.
        share: its share of all pixels, in [0, 1].
    """

    label: int
    name: str
    pixels: int
    share: float


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class of every pixel of an image.

    Attributes:
        image: uint8 [H, W, 3], the image in RGB, upright.
        labels: uint8 or, with more than 255 classes, uint16 [H, W]: the number of each pixel's class.
        class_names: names of all classes, by number.
        palette: uint8 [C, 3], an RGB colour for each class.
    """

    image: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    palette: np.ndarray

    def areas(self, classes: Sequence[str] | None = None) -> list[ClassArea]:
        """The classes that occur, largest first.

        Args:
            classes: names of the classes to return; all if None. Shares always refer to the whole image.

        Raises:
            UserError: a name is unknown.
        """
        counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        counts = np.where(self._shown(classes), counts, 0)
        order = [int(label) for label in np.argsort(-counts, kind='stable') if counts[label]]
        return [
            ClassArea(label, self.class_names[label], int(counts[label]), float(counts[label] / self.labels.size))
            for label in order
        ]

    def overlay(
        self,
        alpha: float = 0.5,
        classes: Sequence[str] | None = None,
        legend: bool = True,
        max_side: int | None = None,
        legend_rows: int | None = None,
    ) -> Image.Image:
        """The classes in colour over the image, with a legend of the classes that occur to its right, largest first.

        Args:
            alpha: opacity of the colours, in [0, 1].
            classes: names of the classes to paint; all if None.
            legend: whether to draw the legend.
            max_side: maximum length of the image's sides in pixels; larger images are shrunk.
            legend_rows: fixed number of legend rows, so that the pictures of a series have the same size.

        Raises:
            UserError: a name is unknown, or `alpha` is not in [0, 1].
        """
        if not 0 <= alpha <= 1:
            raise UserError(f'alpha is {alpha}: give an opacity from 0 to 1')
        image, labels = self._within(max_side)
        picture = painted(image, labels, self.palette, alpha, self._shown(classes))
        areas = self.areas(classes) if legend else []
        if not areas and not legend_rows:
            return Image.fromarray(picture)
        texts = [f'{short(area.name)} {_percent(area.share)}' for area in areas]
        widest = [f'{short(name)} 100.0 %' for name in classes or self.class_names] if legend_rows else texts
        panel = Legend(len(picture), legend_rows or len(areas), widest)
        colors = [tuple(map(int, self.palette[area.label])) for area in areas]
        return Image.fromarray(panel.beside(picture, list(zip(texts, colors, strict=True))))

    def save_overlay(self, path: str | Path, **options) -> None:
        """Writes `overlay(**options)` atomically as a PNG or JPEG file."""
        _save(self.overlay(**options), path, ('.png', '.jpg', '.jpeg'))

    def save_labels(self, path: str | Path) -> None:
        """Writes the class numbers atomically as a greyscale PNG file of 8 or 16 bits."""
        _save(Image.fromarray(self.labels), path, ('.png',))  # lossy formats would change the numbers

    def _shown(self, classes: Sequence[str] | None) -> np.ndarray:
        """Mask of the classes with one of the names, bool [C]."""
        if unknown := set(classes or ()) - set(self.class_names):
            raise UserError(
                f'there is no class {", ".join(sorted(unknown))}: the model knows {", ".join(self.class_names)}'
            )
        return np.array([classes is None or name in classes for name in self.class_names])

    def _within(self, max_side: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Image and labels, shrunk if a side is longer than `max_side`."""
        longest = max(self.labels.shape)
        if max_side is None or longest <= max_side:
            return self.image, self.labels
        height, width = (max(round(side * max_side / longest), 1) for side in self.labels.shape)
        image = Image.fromarray(self.image).resize((width, height), Image.Resampling.BOX)
        rows, cols = (
            ((np.arange(n) + 0.5) * side / n).astype(int)
            for n, side in zip((height, width), self.labels.shape, strict=True)
        )
        return np.asarray(image), self.labels[np.ix_(rows, cols)]


def _percent(share: float) -> str:
    """Percentage with one decimal; small shares are not shown as 0."""
    return f'{100 * share:.1f} %' if share >= 0.0005 else '< 0.1 %'


def _save(picture: Image.Image, path: str | Path, suffixes: Sequence[str]) -> None:
    path = Path(path)
    check_suffix(path, suffixes)
    data = io.BytesIO()
    picture.save(data, format=Image.registered_extensions()[path.suffix.lower()], compress_level=3)
    write_atomically(path, data.getvalue())
