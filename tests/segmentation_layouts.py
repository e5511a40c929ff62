"""Tiny data sets in the folders, names and ids of the public ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

# Height and width of the images, odd and unlike each other.
SIZES = ((75, 65), (66, 85))


def write_pair(image: Path, mask: Path, ids: Sequence[int], seed: int, size: tuple[int, int], mode: str = 'L') -> None:
    """An image of noise and a mask of patches of the given ids; `mode` is Pillow's: `L`, `P` (palette) or `I;16`."""
    rng = np.random.default_rng(seed)
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(image)
    cells = rng.choice(ids, (-(-size[0] // 16), -(-size[1] // 16)))
    stored = np.kron(cells, np.ones((16, 16), int))[: size[0], : size[1]]
    picture = Image.fromarray(stored.astype(np.uint16 if mode == 'I;16' else np.uint8))
    if mode == 'P':
        picture.putpalette([part for number in range(256) for part in (number, 255 - number, number * 7 % 256)])
    picture.save(mask)


def write_list(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{name}\n' for name in names))


def ade20k(root: Path) -> None:
    """`images/` and `annotations/` with a folder per split; 0 is unlabelled, the classes are 1 to 150."""
    for split in ('training', 'validation'):
        for i, size in enumerate(SIZES):
            name = f'ADE_{split[:-3]}_{i:08d}'
            write_pair(
                root / 'images' / split / f'{name}.jpg',
                root / 'annotations' / split / f'{name}.png',
                (0, 1, 150),
                i,
                size,
            )


def cityscapes(root: Path) -> None:
    """A folder per city, PNG images; train ids 0 to 18 and 255."""
    for split, city in (('train', 'aachen'), ('val', 'lindau')):
        for i, size in enumerate(SIZES):
            name = f'{city}_00000{i}_000019'
            image = root / 'leftImg8bit' / split / city / f'{name}_leftImg8bit.png'
            write_pair(
                image, root / 'gtFine' / split / city / f'{name}_gtFine_labelTrainIds.png', (0, 18, 255), i, size
            )


def voc12_aug(root: Path) -> None:
    """One folder of images, palette masks in `SegmentationClass` and 8-bit ones in `SegmentationClassAug`, lists."""
    parts = dict(train=('SegmentationClass', 'P'), aug=('SegmentationClassAug', 'L'), val=('SegmentationClass', 'P'))
    for year, (split, (folder, mode)) in enumerate(parts.items(), 2007):
        names = [f'{year}_00000{i}' for i in range(len(SIZES))]
        write_list(root / f'ImageSets/Segmentation/{split}.txt', names)
        for i, (name, size) in enumerate(zip(names, SIZES, strict=True)):
            write_pair(root / f'JPEGImages/{name}.jpg', root / folder / f'{name}.png', (0, 20, 255), i, size, mode)


def pascal_context(root: Path) -> None:
    """One folder of images, one of masks, lists; 0 is background, the classes are 1 to 59."""
    for year, split in enumerate(('train', 'val'), 2008):
        names = [f'{year}_00000{i}' for i in range(len(SIZES))]
        write_list(root / f'ImageSets/SegmentationContext/{split}.txt', names)
        for i, (name, size) in enumerate(zip(names, SIZES, strict=True)):
            mask = root / f'SegmentationClassContext/{name}.png'
            write_pair(root / f'JPEGImages/{name}.jpg', mask, (0, 1, 59), i, size)


def coco_stuff164k(root: Path) -> None:
    """`images/` and `annotations/` with a folder per split; train ids 0 to 170 and 255."""
    for split in ('train2017', 'val2017'):
        for i, size in enumerate(SIZES):
            name = f'{i:012d}'
            mask = root / 'annotations' / split / f'{name}_labelTrainIds.png'
            write_pair(root / 'images' / split / f'{name}.jpg', mask, (0, 170, 255), i, size)


def own_data(root: Path) -> None:
    """`images/` and `masks/` with a folder per split, images and masks of several kinds; ids 0 to 2 and 255."""
    for split in ('train', 'val'):
        kinds = [
            ('photo.JPG', 'photo.png', 'L'),
            ('scan.tif', 'scan.tif', 'I;16'),
            ('deep/drawing.png', 'deep/drawing.png', 'P'),
        ]
        for i, (image, mask, mode) in enumerate(kinds):
            write_pair(
                root / 'images' / split / image, root / 'masks' / split / mask, (0, 1, 2, 255), i, SIZES[i % 2], mode
            )


LAYOUTS = dict(
    ade20k=ade20k,
    cityscapes=cityscapes,
    voc12_aug=voc12_aug,
    pascal_context=pascal_context,
    coco_stuff164k=coco_stuff164k,
    own_data=own_data,
)
