"""Segment an image, a folder of images or a video with a trained model.

    tokenlabel segment photos --config upernet_lvvit \\
        --checkpoint work_dirs/upernet_lvvit/iter_160000.pth --out segmented
    tokenlabel segment walk.mp4 --config fpn_lvvit --checkpoint fpn.pth --out segmented --classes person car

For images the command writes OUT/overlays (classes in colour, with a legend), OUT/labels (class ids as 8- or 16-bit
grey PNGs of the size of the image) and OUT/areas.csv (area of each class in each image). For a video it writes
OUT/NAME.mp4 and OUT/NAME.csv. Folders are searched recursively, and the output keeps their structure. An image that
cannot be read is reported and skipped; the exit status is then 1.
"""

import argparse
import csv
import errno
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from rich.console import Console

from mmseg_ext import Segmenter
from mmseg_ext.checks.in_channels import in_channels_of
from mmseg_ext.inference.segmentation import ClassArea
from tokenlabel.cli.boundary import reports_errors
from tokenlabel.cli.parser import Parser, device, fraction, positive, size_in_bytes
from tokenlabel.engine.config.run_config import ConfigOptions, load_config
from tokenlabel.errors import UserError
from tokenlabel.files.folder_walk import IMAGE_SUFFIXES, find_files, report_skipped
from tokenlabel.files.output_checks import check_output_file, check_output_folder
from tokenlabel.files.output_names import output_names
from tokenlabel.files.reading import printable
from tokenlabel.files.writing import unfinished
from tokenlabel.image_files.channels import STORED_SUFFIXES
from tokenlabel.processes.progress import progress_bar
from tokenlabel.processes.signals import when_stopped

VIDEO_SUFFIXES = frozenset(['.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.flv', '.ts'])
# Number of classes in the legend of a video: the largest of each frame.
VIDEO_LEGEND = 12
FALLBACK_FPS = 25.0
# Subfolders of OUT.
KINDS = ('overlays', 'labels')


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if not args.source.exists():
        raise UserError(f'{args.source} does not exist: give an image, a folder of images or a video')
    is_video = args.source.is_file() and args.source.suffix.lower() in VIDEO_SUFFIXES
    check_outputs(args, is_video)
    config = load_config(args.config, args.cfg_options)
    suffixes = (*IMAGE_SUFFIXES, *STORED_SUFFIXES) if in_channels_of(config) else IMAGE_SUFFIXES
    images = [] if is_video else find_images(args.source, args.out, suffixes)
    segmenter = Segmenter(config, args.checkpoint, args.device, args.memory_limit)
    if unknown := set(args.classes or ()) - set(segmenter.class_names):
        known = ', '.join(segmenter.class_names)
        raise UserError(f'--classes: the model has no class {", ".join(sorted(unknown))}, choose from {known}')
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    return segment_video(segmenter, args, console) if is_video else segment_images(segmenter, images, args, console)


def check_outputs(args: argparse.Namespace, is_video: bool) -> None:
    """Checks that all output files can be written.

    Raises:
        UserError: one of them cannot be written, or would overwrite the video.
    """
    if is_video:
        target = args.out / f'{args.source.stem}.mp4'
        if target.resolve() == args.source.resolve():
            raise UserError(f'--out {args.out} would overwrite the video itself: choose another folder')
        for path in (target, target.with_suffix('.csv')):
            check_output_file(path)
        return
    check_output_file(args.out / 'areas.csv')
    for kind in KINDS:
        check_output_folder(args.out / kind)


def segment_images(segmenter: Segmenter, images: Sequence[Path], args: argparse.Namespace, console: Console) -> int:
    """Writes overlays, label maps and areas; returns the exit status."""
    root = args.source if args.source.is_dir() else args.source.parent
    broken = done = 0
    with (
        when_stopped(
            lambda: f'{done} of {len(images)} images are in {args.out}, without areas.csv; run the command again.'
        ),
        table_of(args.out / 'areas.csv', ['image', 'label', 'class', 'pixels', 'share']) as rows,
        progress_bar(console) as bar,
    ):
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
                image = printable(path.relative_to(root).as_posix())
                rows.writerows([image, *row(a)] for a in result.areas(args.classes))
                done += 1
            bar.advance(task)
    of_them = f'; {broken} of {len(images)} images could not be segmented' if broken else ''
    print(f'{args.out}: {len(images) - broken} images segmented{of_them}.')
    return 1 if broken else 0


def segment_video(segmenter: Segmenter, args: argparse.Namespace, console: Console) -> int:
    """Writes a video of overlays and the areas in every frame; returns the exit status."""
    for path in (args.source, args.out):
        if printable(str(path)) != str(path):  # OpenCV crashes
            raise UserError(f'{path} has a name that is not UTF-8, which is not supported for videos: rename it')
    video = mmcv.VideoReader(str(args.source))
    fps = video.fps if video.opened and 0 < video.fps < 1000 else FALLBACK_FPS
    legend_rows = min(len(args.classes or segmenter.class_names), VIDEO_LEGEND)
    done, target = 0, args.out / f'{args.source.stem}.mp4'
    with (
        when_stopped(lambda: f'{done} frames were segmented, but no output is kept.'),
        unfinished(target) as film,
        table_of(target.with_suffix('.csv'), ['frame', 'seconds', 'label', 'class', 'pixels', 'share']) as rows,
        progress_bar(console) as bar,
        closing(Film(film, fps)) as writer,
    ):
        task = bar.add_task('Segmenting', total=max(video.frame_cnt, 0) or None)
        for frame in video:
            result = segmenter(np.ascontiguousarray(frame[..., ::-1]))
            picture = np.asarray(
                result.overlay(args.alpha, args.classes, max_side=args.max_side, legend_rows=legend_rows)
            )
            writer.write(np.pad(picture, [(0, side % 2) for side in picture.shape[:2]] + [(0, 0)], mode='edge'))
            rows.writerows([done, f'{done / fps:.3f}', *row(a)] for a in result.areas(args.classes))
            done += 1
            bar.advance(task)
        if not done:
            raise UserError(f'{args.source} is damaged or not a video, because no frame can be read: give another file')
        writer.finish()
    print(f'{target}: {done} frames segmented.')
    return 0


class Film:
    """Writes an MPEG-4 video. All frames must have the size of the first one.

    Args:
        path: the file.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._count = 0

    def write(self, picture: np.ndarray) -> None:
        """Adds a frame, RGB uint8 [H, W, 3] with even sides.

        Raises:
            UserError: the frame is too large for a video.
        """
        height, width = picture.shape[:2]
        if self._writer is None:
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*'mp4v'), self.fps, (width, height))
            if not self._writer.isOpened():
                raise UserError(
                    f'a video of {width}x{height} pixels cannot be written to {self.path.parent}: give a smaller '
                    '--max-side'
                )
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))
        self._count += 1

    def finish(self) -> None:
        """Closes the file and checks that it contains all frames, because OpenCV does not report a full disk.

        Raises:
            OSError: frames are missing.
        """
        self.close()
        film = cv2.VideoCapture(str(self.path))
        try:
            film.set(cv2.CAP_PROP_POS_FRAMES, self._count - 1)
            if film.get(cv2.CAP_PROP_FRAME_COUNT) != self._count or not film.read()[0]:
                raise OSError(errno.EIO, 'not all frames were written', str(self.path))
        finally:
            film.release()

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.release()


def find_images(source: Path, out: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The image itself, or all images in a folder and its subfolders, except hidden images and results in `out`.

    Args:
        source: an image or a folder.
        out: folder of the results.
        suffixes: suffixes of image files in a folder.

    Raises:
        UserError: there are no images.
    """
    if not source.is_dir():
        if not source.is_file():
            raise UserError(f'{source} is not a regular file: give an image, a folder of images or a video')
        return [source]
    found = find_files(source, suffixes, without=[out / kind for kind in KINDS])
    if not found.names:
        passed = f'; skipped {found.skipped}' if found.skipped else ''
        raise UserError(f'{source} has no images, whose names must end with {", ".join(suffixes)}{passed}')
    report_skipped(source, len(found.names), found.skipped)
    return [source / name for name in found.names]


def names_of(images: Sequence[Path], root: Path) -> list[Path]:
    """Output paths of each image below OUT/overlays and OUT/labels, see `output_names`."""
    return [Path(name) for name in output_names([path.relative_to(root).as_posix() for path in images], '.png')]


def row(area: ClassArea) -> list:
    """A row of the table of areas, without its first columns."""
    return [area.label, area.name, area.pixels, f'{area.share:.6f}']


@contextmanager
def table_of(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yields a CSV writer. The file is written atomically, and only if the block succeeds."""
    with unfinished(path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        yield rows


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    parser = Parser(prog='tokenlabel segment', description=__doc__)
    parser.add_argument('source', type=Path, metavar='IMAGE|FOLDER|VIDEO', help='what to segment')
    parser.add_argument('--config', type=Path, required=True, help='config that the model was trained with')
    parser.add_argument('--checkpoint', required=True, help='path or URL of weights of this project or the release')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='folder to write the results to')
    parser.add_argument('--device', type=device, help='cpu, cuda or cuda:N (default: the GPU if there is one)')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='paint and measure only these (default: all)')
    parser.add_argument('--alpha', type=fraction, default=0.5, help='opacity of the colours, 0 to 1 (default: 0.5)')
    parser.add_argument(
        '--max-side',
        type=positive,
        default=4096,
        metavar='PIXELS',
        help='limit of the longer side of overlays (default: 4096)',
    )
    parser.add_argument(
        '--memory-limit',
        type=size_in_bytes,
        default='4G',
        metavar='SIZE',
        help='memory for one image in addition to the weights, such as 800M; larger images are segmented in tiles. '
        'none: never use tiles (default: 4G)',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, help='config entries to change: a.b=1 c.d=[2,3]'
    )
    return parser
