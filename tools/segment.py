#!/usr/bin/env python
"""Segments an image, a folder of images or a video with a trained model.

python tools/segment.py photos --config configs/upernet_lvvit.py \\
    --checkpoint work_dirs/upernet_lvvit/iter_160000.pth --out segmented
python tools/segment.py walk.mp4 --config configs/fpn_lvvit.py --checkpoint fpn.pth --out segmented --classes person car

Of images it writes OUT/overlays (the classes in colour, with a legend), OUT/labels (class numbers, grey PNGs of 8 or 16
bits at the image's own size) and OUT/areas.csv (how much of each image each class covers); of a video OUT/NAME.mp4 and
OUT/NAME.csv. Folders are searched for images with all folders in them, and their structure is kept. An image that
cannot be read is reported and the others go on; the exit status is 1 then.
"""

import argparse
import csv
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import mmcv
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from timm.utils.misc import natural_key

from mmseg_ext import Segmenter
from mmseg_ext.inference.segmentation import ClassArea
from tokenlabel.data.image_reader import IMAGE_SUFFIXES
from tokenlabel.engine.config import ConfigOptions, load_config
from tokenlabel.errors import UserError, reports_errors
from tokenlabel.labels.annotator.progress_bar import ImagesPerSecond

VIDEO_SUFFIXES = frozenset(['.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.flv', '.ts'])
UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
# Classes in the legend of a video, the largest of each frame.
VIDEO_LEGEND = 12
FALLBACK_FPS = 25.0


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if not args.source.exists():
        raise UserError(f'there is no {args.source}: give an image, a folder of images or a video')
    is_video = args.source.is_file() and args.source.suffix.lower() in VIDEO_SUFFIXES
    images = [] if is_video else find_images(args.source, args.out)
    if not 0 <= args.alpha <= 1:
        raise UserError(f'--alpha is {args.alpha}: the opacity of the colours lies between 0 and 1')
    config = load_config(args.config, args.cfg_options)
    segmenter = Segmenter(config, args.checkpoint, args.device, args.memory_limit)
    if unknown := set(args.classes or ()) - set(segmenter.class_names):
        known = ', '.join(segmenter.class_names)
        raise UserError(f'--classes: the model knows no {", ".join(sorted(unknown))}, but {known}')
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        return segment_video(segmenter, args, console) if is_video else segment_images(segmenter, images, args, console)
    except KeyboardInterrupt:
        console.print('Stopped.')
        return 130


def segment_images(segmenter: Segmenter, images: Sequence[Path], args: argparse.Namespace, console: Console) -> int:
    """Writes overlays, label maps and areas; the exit status."""
    root = args.source if args.source.is_dir() else args.source.parent
    broken = 0
    with unfinished(args.out / 'areas.csv') as table, open(table, 'w', newline='', encoding='utf-8') as file:
        rows = csv.writer(file)
        rows.writerow(['image', 'label', 'class', 'pixels', 'share'])
        with progress(console) as bar:
            task = bar.add_task('Segmenting', total=len(images))
            for path, name in zip(images, names_of(images, root), strict=True):
                try:
                    result = segmenter(path)
                except UserError as error:
                    broken += 1
                    console.print(f'skipped: {error}')
                else:
                    result.save_overlay(
                        args.out / 'overlays' / name, alpha=args.alpha, classes=args.classes, max_side=args.max_side
                    )
                    result.save_labels(args.out / 'labels' / name)
                    rows.writerows([path.relative_to(root).as_posix(), *row(a)] for a in result.areas(args.classes))
                bar.advance(task)
    of_them = f'; {broken} of {len(images)} images could not be segmented' if broken else ''
    print(f'{args.out}: {len(images) - broken} images segmented{of_them}.')
    return 1 if broken else 0


def segment_video(segmenter: Segmenter, args: argparse.Namespace, console: Console) -> int:
    """Writes a video of overlays and the areas in every frame; the exit status."""
    video = mmcv.VideoReader(str(args.source))
    fps = video.fps if video.opened and 0 < video.fps < 1000 else FALLBACK_FPS
    legend_rows = min(len(args.classes or segmenter.class_names), VIDEO_LEGEND)
    done, target = 0, args.out / f'{args.source.stem}.mp4'
    if target.resolve() == args.source.resolve():
        raise UserError(f'--out {args.out} would replace the video itself: choose another folder')
    writer = None
    with (
        unfinished(target) as film,
        unfinished(target.with_suffix('.csv')) as table,
        open(table, 'w', newline='', encoding='utf-8') as file,
        progress(console) as bar,
    ):
        rows = csv.writer(file)
        rows.writerow(['frame', 'seconds', 'label', 'class', 'pixels', 'share'])
        task = bar.add_task('Segmenting', total=max(video.frame_cnt, 0) or None)
        try:
            for frame in video:
                result = segmenter(np.ascontiguousarray(frame[..., ::-1]))
                picture = np.asarray(
                    result.overlay(args.alpha, args.classes, max_side=args.max_side, legend_rows=legend_rows)
                )
                picture = np.pad(picture, [(0, side % 2) for side in picture.shape[:2]] + [(0, 0)], mode='edge')
                writer = writer or open_writer(film, fps, picture.shape[1::-1])
                writer.write(np.ascontiguousarray(picture[..., ::-1]))
                rows.writerows([done, f'{done / fps:.3f}', *row(a)] for a in result.areas(args.classes))
                done += 1
                bar.advance(task)
        finally:
            if writer:
                writer.release()
        if not done:
            raise UserError(f'{args.source} is damaged or no video: no frame of it can be read')
    print(f'{target}: {done} frames segmented.')
    return 0


def open_writer(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """A new MPEG-4 video of frames of this width and height."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, size)
    if not writer.isOpened():
        raise UserError(f'{path.parent} takes no video of {size[0]}x{size[1]} pixels: give a smaller --max-side')
    return writer


def find_images(source: Path, out: Path) -> list[Path]:
    """The image itself, or all images in a folder and the folders in it, but for those in `out` and hidden ones.

    Raises:
        UserError: there are none.
    """
    if source.is_file():
        return [source]
    written = [out / kind for kind in ('overlays', 'labels')]
    images = [
        path
        for path in source.rglob('*')
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith('.') for part in path.relative_to(source).parts)
        and not any(path.is_relative_to(folder) for folder in written)
        and path.is_file()
    ]
    if not images:
        raise UserError(f'{source} holds no images: their names end with {", ".join(IMAGE_SUFFIXES[:4])}...')
    return sorted(images, key=lambda path: natural_key(path.relative_to(source).as_posix()))


def names_of(images: Sequence[Path], root: Path) -> list[Path]:
    """Where below OUT/overlays and OUT/labels the pictures of each image go.

    `a/b.jpg` becomes `a/b.png`; where `a/b.tif` lies beside it, both keep their suffix, `a/b.jpg.png`.
    """
    paths = [path.relative_to(root) for path in images]
    stems = Counter(path.with_suffix('') for path in paths)
    return [
        path.with_suffix('.png') if stems[path.with_suffix('')] == 1 else path.with_name(f'{path.name}.png')
        for path in paths
    ]


def row(area: ClassArea) -> list:
    """Columns of the areas' tables."""
    return [area.label, area.name, area.pixels, f'{area.share:.6f}']


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A temporary name for a file that takes its own once the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}.tmp{path.suffix}')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def progress(console: Console) -> Progress:
    """A bar with how far it is, the speed and the time left."""
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, ImagesPerSecond(), TimeRemainingColumn(), console=console)


def size_in_bytes(text: str) -> int | None:
    """`800M`, `2.5G`, or `none`."""
    if text.lower() == 'none':
        return None
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?', text.strip(), re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f'{text!r} is no size: write 800M, 4G or none')
    return int(float(match[1]) * UNITS[match[2].upper()])


def pixels(text: str) -> int:
    """A side's length, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of pixels')
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, metavar='IMAGE|FOLDER|VIDEO', help='what to segment')
    parser.add_argument('--config', type=Path, required=True, help='config that the model was trained with')
    parser.add_argument('--checkpoint', required=True, help='its weights: path or URL, ours or a released one')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='where the results go')
    parser.add_argument('--device', help='cpu, cuda or cuda:N (default: the GPU if there is one)')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='paint and measure only these (default: all)')
    parser.add_argument('--alpha', type=float, default=0.5, help='opacity of the colours, 0 to 1 (default: 0.5)')
    parser.add_argument(
        '--max-side',
        type=pixels,
        default=4096,
        metavar='PIXELS',
        help='longer side of overlays at most (default: 4096)',
    )
    parser.add_argument(
        '--memory-limit',
        type=size_in_bytes,
        default='4G',
        metavar='SIZE',
        help='of one image beyond the weights, such as 800M; huge images are done by tiles. none: in one piece always '
        '(default: 4G)',
    )
    help_text = 'config entries to change: a.b=1 c.d=[2,3]'
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, help=help_text)
    return parser


if __name__ == '__main__':
    sys.exit(main())
