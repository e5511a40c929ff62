"""Folders of images of any number of channels and bits, with masks that their numbers tell."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.tiny_segmentation import own_config

SIZES = ((75, 65), (66, 85), (80, 80))


def scene(channels: int, seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image uint16 [H, W, C] beyond 8 bits, and its mask of two classes, uint8 [H, W]."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 3 :, size[1] // 4 : 3 * size[1] // 4] = 1
    levels = 1000 + 3000 * np.arange(1, channels + 1)
    noise = rng.integers(0, 500, (*size, channels))
    return (levels * (1 + mask[..., None]) // 2 + noise).astype(np.uint16), mask


def write_npy(path: Path, image: np.ndarray) -> None:
    np.save(path.with_suffix('.npy'), image)


def write_bands_first(path: Path, image: np.ndarray) -> None:
    np.save(path.with_suffix('.npy'), np.moveaxis(image, 2, 0))


def write_tiff(path: Path, image: np.ndarray) -> None:
    numbers = np.moveaxis(image, 2, 0) if image.shape[2] > 1 else image[..., 0]
    options = dict(planarconfig='separate') if image.shape[2] > 1 else {}
    tifffile.imwrite(path.with_suffix('.tif'), numbers, photometric='minisblack', **options)


def write_grey_png(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image[..., 0]).save(path.with_suffix('.png'))


def write_folders(root: Path, channels: int, writers: tuple, classes: int = 2) -> None:
    """`images/` and `masks/` with a `train` and a `val` of three images each, of the kinds that `writers` make."""
    for split, first in (('train', 0), ('val', 10)):
        for kind in ('images', 'masks'):
            (root / kind / split).mkdir(parents=True)
        for number, size in enumerate(SIZES):
            image, mask = scene(channels, first + number, size)
            writers[number % len(writers)](root / 'images' / split / f'{number}', image)
            Image.fromarray(mask).save(root / 'masks' / split / f'{number}.png')


def write_config(folder: Path, model: str) -> Path:
    """`configs/custom.py` on `folder/data` with the tiny network, and a line that changes `model`."""
    return own_config(folder, ['ground', 'field'], f"train_cfg['max_iters'] = 2\n{model}")
