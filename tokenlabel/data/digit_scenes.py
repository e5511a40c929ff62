"""The embedded dataset: signs with handwritten digits in front of darkened photographs.

Everything comes with scikit-learn, so nothing is downloaded: the 1797 handwritten digits of `load_digits` (8x8) and the
two photographs of `load_sample_images`. A scene holds one to three signs, discs and squares, of distinct classes on a
random crop. The digit is the class. The hue of the sign agrees with it nine times in ten, which lets small networks
learn within a few hundred steps. The whole sign belongs to its class, so regions are larger than a token, as in real
scenes. The image label is the sign with the largest visible area, and every pixel has a label. Training and validation
share neither digits nor photo regions: the last fifth of the digits and the right half of each photo validate.

`write_digit_scenes` puts scenes on disk as an ImageNet folder and in ADE20K's layout, to be read as real data is.
"""

import colorsys
import json
import shutil
import uuid
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tokenlabel.errors import UserError
from tokenlabel.files.writing import disk_errors

CLASSES = tuple(f'digit_{digit}' for digit in range(10))
SEGMENTATION_CLASSES = ('background', *CLASSES)
# Background first; hues alternate so that neighbouring digits differ most.
PALETTE = (
    (38, 43, 56),
    (230, 75, 75),
    (79, 195, 247),
    (255, 202, 58),
    (155, 93, 229),
    (102, 187, 106),
    (255, 140, 66),
    (63, 103, 225),
    (240, 98, 178),
    (0, 168, 150),
    (188, 143, 99),
)

UNLABELLED, BACKGROUND, FIRST_DIGIT = 0, 1, 2
SPLITS = ('train', 'val')
FORMAT = 2  # raised whenever the same parameters would give other scenes
PARAMETERS_FILE = 'digit_scenes.json'

MAX_SIGNS = 3
SIDES = (20 / 64, 40 / 64)  # of a sign, as shares of the scene's side
HUE_SPREAD = 0.03  # standard deviation around the hue of the class; the hues of neighbouring classes are 0.1 apart


class Scene(NamedTuple):
    """One picture and what is in it.

    Attributes:
        image: uint8 RGB [size, size, 3].
        annotation: uint8 [size, size] in ADE20K's convention: 0 unlabelled (the soft border of a sign), 1 background,
            2..11 the signs with the digits 0..9.
        label: class of the sign with the most annotated pixels, 0..9.
    """

    image: np.ndarray
    annotation: np.ndarray
    label: int


def digit_scene(split: str, index: int, size: int = 64, seed: int = 0) -> Scene:
    """Scene number `index` of a split; the same arguments always give the same scene.

    The label is `index % 10`, so any ten consecutive scenes hold every class once. Signs are drawn from large to small
    (`SIDES`); a drawing whose labelled sign is not clearly the largest is repeated.

    Args:
        split: 'train' or 'val'.
        index: number of the scene, from 0.
        size: side of the scene in pixels, at least 32.
        seed: another seed gives other scenes.
    """
    label = index % len(CLASSES)
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    while True:
        scene = _draw_scene(split, label, size, rng)
        areas = np.bincount(scene.annotation.ravel(), minlength=FIRST_DIGIT + len(CLASSES))[FIRST_DIGIT:]
        if areas[label] > 1.2 * np.delete(areas, label).max():
            return scene


def write_digit_scenes(
    root: str | Path,
    num_train: int = 6000,
    num_val: int = 1000,
    num_segmentation: int = 2000,
    num_segmentation_val: int = 500,
    size: int = 64,
    seed: int = 0,
) -> Path:
    """Write scenes as an ImageNet folder and in ADE20K's layout.

    Below `root`: `imagenet/{train,val}/digit_D/NAME.jpg`, and `ade/images/{training,validation}/NAME.jpg` with
    `ade/annotations/{training,validation}/NAME.png`. The segmentation scenes are the first of the
    classification scenes. The folder appears under its name only when it is complete; a complete one made with the same
    parameters is reused.

    Args:
        root: folder to make.
        num_train: training scenes of the ImageNet folder, at least 10 (one per class).
        num_val: validation scenes of the ImageNet folder, at least 10.
        num_segmentation: training scenes of the segmentation layout, 1 to `num_train`.
        num_segmentation_val: validation scenes of the segmentation layout, 1 to `num_val`.
        size: side of a scene in pixels, at least 32.
        seed: seed of all scenes.

    Returns:
        `root` as a path.

    Raises:
        UserError: the numbers do not fit together, `root` holds something else, or cannot be written.
    """
    root = Path(root)
    parameters = {
        'format': FORMAT,
        'num_train': num_train,
        'num_val': num_val,
        'num_segmentation': num_segmentation,
        'num_segmentation_val': num_segmentation_val,
        'size': size,
        'seed': seed,
    }
    if min(num_train, num_val) < len(CLASSES):
        raise UserError(f'{min(num_train, num_val)} scenes cannot show all {len(CLASSES)} classes: ask for more.')
    if not (0 < num_segmentation <= num_train and 0 < num_segmentation_val <= num_val):
        raise UserError(
            f'{num_segmentation} + {num_segmentation_val} segmentation scenes cannot be taken from '
            f'{num_train} + {num_val} scenes: ask for at least one of each split and at most all.'
        )
    if size < 32:
        raise UserError(f'Scenes of {size} pixels are too small to read a digit: use a size of at least 32.')
    if _is_finished(root, parameters):
        return root

    with disk_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        unfinished = root.with_name(f'.{root.name}-{uuid.uuid4().hex[:8]}')
        try:
            _write_split(unfinished, 'train', num_train, num_segmentation, size, seed)
            _write_split(unfinished, 'val', num_val, num_segmentation_val, size, seed)
            (unfinished / PARAMETERS_FILE).write_text(json.dumps(parameters, indent=2) + '\n')
            try:
                unfinished.rename(root)
            except OSError:
                # Another process of the same run may have been first.
                if not _is_finished(root, parameters):
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _is_finished(root: Path, parameters: dict) -> bool:
    """Whether `root` already holds these scenes; an error when it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    record = root / PARAMETERS_FILE
    if not record.is_file():
        raise UserError(f'{root} exists and holds no digit scenes: choose another folder or remove it.')
    found = json.loads(record.read_text())
    if found != parameters:
        names = sorted(name for name in {*found, *parameters} if found.get(name) != parameters.get(name))
        differences = ', '.join(f'{name} {found.get(name)} instead of {parameters.get(name)}' for name in names)
        raise UserError(f'{root} holds other digit scenes ({differences}): choose another folder or remove it.')
    return True


def _write_split(root: Path, split: str, num_scenes: int, num_segmentation: int, size: int, seed: int) -> None:
    ade_split = {'train': 'training', 'val': 'validation'}[split]
    class_folders = [root / 'imagenet' / split / name for name in CLASSES]
    images, annotations = root / 'ade/images' / ade_split, root / 'ade/annotations' / ade_split
    for folder in (*class_folders, images, annotations):
        folder.mkdir(parents=True)
    for index in range(num_scenes):
        scene = digit_scene(split, index, size, seed)
        path = class_folders[scene.label] / f'{split}_{index:06d}.jpg'
        Image.fromarray(scene.image).save(path, quality=95)
        if index < num_segmentation:
            shutil.copyfile(path, images / path.name)
            Image.fromarray(scene.annotation).save(annotations / f'{path.stem}.png')


def _draw_scene(split: str, label: int, size: int, rng: np.random.Generator) -> Scene:
    canvas = _background(split, size, rng)
    annotation = np.full((size, size), BACKGROUND, np.uint8)
    sides = -np.sort(-rng.uniform(*SIDES, rng.integers(1, MAX_SIGNS + 1))) * size
    others = rng.permutation(np.delete(np.arange(len(CLASSES)), label))
    for digit, side in zip((label, *others), sides, strict=False):
        shape = _shape(round(side), rng)
        window = _free_window(annotation, shape, rng)
        if window is not None:
            board, ink = _colours(digit, rng)
            _paint(canvas[window], shape, board)
            _paint(canvas[window], shape * _ink(split, digit, len(shape), rng), ink)
            annotation[window][shape > 0.25] = UNLABELLED
            annotation[window][shape >= 0.75] = FIRST_DIGIT + digit
    return Scene(np.rint(canvas).astype(np.uint8), annotation, label)


def _background(split: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """A darkened square crop of one of the split's photo halves, float32 [size, size, 3] in [0, 255]."""
    photos = _photo_halves(split)
    photo = photos[rng.integers(len(photos))]
    side = rng.uniform(96, min(photo.size))
    left, top = rng.uniform(0, photo.width - side), rng.uniform(0, photo.height - side)
    crop = photo.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.asarray(crop, np.float32) * np.float32(rng.uniform(0.25, 0.55))


def _shape(side: int, rng: np.random.Generator) -> np.ndarray:
    """A disc or a square of `side` pixels: the share of every pixel that it covers, float32 [side, side] in [0, 1]."""
    offsets = np.abs(np.arange(side) + 0.5 - side / 2)
    distances = np.hypot(*np.meshgrid(offsets, offsets)) if rng.random() < 0.5 else np.maximum.outer(offsets, offsets)
    return np.clip(side / 2 - distances, 0, 1).astype(np.float32)


def _ink(split: str, digit: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """One handwritten `digit` in the middle of a sign: share of ink, float32 [side, side] in [0, 1]."""
    samples = _handwriting(split)[digit]
    cells = Image.fromarray(samples[rng.integers(len(samples))])
    enlarged = cells.resize((side, side), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(enlarged, np.float32) / 255 * 2.5 - 0.75, 0, 1)


def _free_window(annotation: np.ndarray, shape: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Where to put a sign so that at most a tenth of it hides other signs; None when eight places fail."""
    side, covered = len(shape), shape > 0
    for _ in range(8):
        top, left = rng.integers(0, len(annotation) - side + 1, 2)
        window = slice(top, top + side), slice(left, left + side)
        if np.count_nonzero(covered & (annotation[window] != BACKGROUND)) <= 0.1 * np.count_nonzero(covered):
            return window
    return None


def _paint(canvas: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> None:
    """Lay a colour, [3] in [0, 255], over the covered part of a scene, in place."""
    canvas += coverage[..., None] * (colour - canvas)


def _colours(digit: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of the sign, a bright colour whose hue hints at the digit, and of its ink, dark; each [3] in [0, 255]."""
    hue = (digit / len(CLASSES) + rng.normal(0, HUE_SPREAD)) % 1
    board = colorsys.hsv_to_rgb(hue, rng.uniform(0.3, 0.8), rng.uniform(0.8, 1))
    ink = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.3, 0.8), rng.uniform(0, 0.3))
    return np.array(board, np.float32) * 255, np.array(ink, np.float32) * 255


@cache
def _handwriting(split: str) -> list[np.ndarray]:
    """The split's samples of every digit, each uint8 [n, 12, 12]: 8x8 cells and an empty rim of two."""
    from sklearn.datasets import load_digits  # slow to import, and not needed to read scenes

    digits = load_digits()
    cells = np.pad(np.rint(digits.images * (255 / 16)).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
    part = _part(split, len(cells) * 4 // 5)
    return [cells[part][digits.target[part] == digit] for digit in range(len(CLASSES))]


@cache
def _photo_halves(split: str) -> list[Image.Image]:
    """The split's half of each photograph, RGB."""
    from sklearn.datasets import load_sample_images

    return [
        Image.fromarray(np.ascontiguousarray(photo[:, _part(split, photo.shape[1] // 2)]))
        for photo in load_sample_images().images
    ]


def _part(split: str, boundary: int) -> slice:
    """What of a sequence belongs to the split: all before the boundary for training, the rest for validation."""
    return slice(0, boundary) if split == 'train' else slice(boundary, None)
