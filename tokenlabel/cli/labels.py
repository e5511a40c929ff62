"""Inspect, verify, import, merge and subset label stores.

    tokenlabel labels info data/imagenet_labels
    tokenlabel labels verify data/imagenet_labels --images data/imagenet/train
    tokenlabel labels view data/labels cat/7.jpg --images data/train --out labels.png --crop 0.5,0,0.5,0.5
    tokenlabel labels import-release label_top5_train_nfnet.zip data/imagenet_labels --images data/imagenet/train

`tokenlabel labels COMMAND --help` lists the options of a command.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from tokenlabel.cli.annotator_arguments import add_annotator_arguments, annotator_of
from tokenlabel.cli.boundary import reports_errors
from tokenlabel.cli.parser import Parser, add_workers, crop, positive, share, side, whole
from tokenlabel.data.readers import open_images
from tokenlabel.errors import UserError
from tokenlabel.files.output_checks import check_output_file, check_output_folder
from tokenlabel.files.reading import printable, read_lines
from tokenlabel.labels.annotator import map_side
from tokenlabel.labels.maintenance import geometry_check, release
from tokenlabel.labels.maintenance.rewrite import keys_of_classes, merge_stores, subset_store
from tokenlabel.labels.maintenance.statistics import describe_store, image_labels, store_statistics
from tokenlabel.labels.maintenance.verification import lacks_checksum, num_files, verify_store
from tokenlabel.labels.source_images import open_rgb
from tokenlabel.labels.store import LabelMap, LabelStore, image_keys
from tokenlabel.labels.store.files import num_shards
from tokenlabel.labels.view_rule import CenterCrop, Squash
from tokenlabel.objective.targets import token_targets
from tokenlabel.pictures.labels import FIGURE_SUFFIXES, crop_targets_figure, save_figure
from tokenlabel.processes.progress import progress_bar
from tokenlabel.processes.signals import when_stopped
from tokenlabel.transforms.view import View


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    with when_stopped(lambda: 'run the same command to resume.') if args.run in RESUMED else nullcontext():
        return args.run(args)


def info(args: argparse.Namespace) -> int:
    """Show the contents of a store and a histogram of its best scores."""
    store = LabelStore(args.store)
    reader = images_of(args)
    with progress('Reading', num_shards(store.meta)) as advance:
        statistics = store_statistics(store, image_labels(store, reader), on_shard=advance)
    print(describe_store(store, statistics))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check every file and value of a store, and that every image has a map; exit status 1 if anything is wrong."""
    reader = images_of(args)
    with progress('Checking', num_files(args.store)) as advance:
        problems = verify_store(args.store, reader, on_file=advance)
    for problem in problems:
        print(problem)
    if not problems:
        print(f'{args.store} is intact.')
        if lacks_checksum(args.store):
            print(f'{args.store / "meta.json"} has no checksum of itself, because an earlier version wrote it.')
    return int(bool(problems))


def view(args: argparse.Namespace) -> int:
    """Draw label maps over their images: the best class of each cell with its confidence as opacity, and the token
    targets of a crop of the image."""
    check_output_file(args.out, FIGURE_SUFFIXES)
    store, reader = LabelStore(args.store), images_of(args)
    places = {key: index for index, key in enumerate(image_keys(reader))}
    rows = store.indices(args.keys)
    missing = [key for key, row in zip(args.keys, rows, strict=True) if row < 0 or key not in places]
    if missing:
        raise UserError(
            f'{missing[0]} has no map in {args.store} or is not in {args.images}: name images as in the store, for '
            f'example {store.keys[0]}.'
        )
    images = [open_rgb(reader, places[key]) for key in args.keys]
    maps = [store[int(row)] for row in rows]
    targets = [crop_targets(label_map, args.crop, args.grid, store.num_classes) for label_map in maps]
    names = store.class_names or [str(number) for number in range(store.num_classes)]
    crops = [args.crop] * len(images)
    figure = crop_targets_figure(
        images, maps, crops, targets, names, captions=[printable(Path(key).name) for key in args.keys]
    )
    print(save_figure(figure, args.out, dpi=300))
    return 0


def crop_targets(label_map: LabelMap, crop: Sequence[float], grid: int, num_classes: int) -> Tensor:
    """Token targets [grid, grid, C] of a crop (left, top, width, height) in fractions of the image."""
    scores, classes = torch.from_numpy(label_map.scores), torch.from_numpy(label_map.classes.astype(np.int32))
    view, map_view = View.crop(*crop).tensor(), label_map.view.tensor()
    maps = (part[None] for part in (scores, classes, view))
    targets = token_targets(*maps, (grid, grid), num_classes, map_view=map_view[None])
    return targets.dense()[1][0].unflatten(0, (grid, grid))


def import_release(args: argparse.Namespace) -> int:
    """Convert the score maps of the 2021 release (`class/image.pt` in a folder, tar or zip) to a store."""
    rule = CenterCrop(args.size, args.crop_pct) if args.view == CenterCrop.name else Squash(args.size)
    options = {'num_classes': args.num_classes, 'transposed': args.transposed, 'workers': args.workers}
    with progress('Importing') as advance:
        store = release.import_release(
            args.source, args.store, rule, reader=images_of(args), on_batch=advance, **options
        )
    print(f'{args.store}: {len(store)} maps of {store.grid[0]}x{store.grid[1]} cells, view {rule.name}.')
    return 0


def export_release(args: argparse.Namespace) -> int:
    """Write a store as the files of the 2021 release, `class/image.pt`."""
    check_output_folder(args.folder)
    store = LabelStore(args.store)
    with progress('Exporting', len(store)) as advance:
        count = release.export_release(store, args.folder, on_map=advance)
    print(f'{args.folder}: {count} maps.')
    return 0


def check_geometry(args: argparse.Namespace) -> int:
    """Annotate some images again to determine whether a store's maps are upright or transposed, and cover the whole
    image or its centre crop; exit status 1 if this cannot be determined or contradicts the store's metadata."""
    store = LabelStore(args.store)
    reader = open_images(args.images, args.split)
    annotator = annotator_of(args, store.view_rule.size)
    crop_pct = args.crop_pct or getattr(store.view_rule, 'crop_pct', 1.0)
    options = {'crop_pct': crop_pct, 'samples': args.samples, 'device': args.device}
    map_side(annotator.dense.to(args.device), annotator.size, args.device)
    with progress('Annotating', args.samples) as advance:
        check = geometry_check.check_geometry(store, reader, annotator, on_image=advance, **options)
    print(check.table())
    wrong = check.reason or geometry_check.contradiction(store, check.geometry)
    print(wrong or f'{args.store} has the geometry in its metadata: {check.geometry}.')
    return int(bool(wrong))


def merge(args: argparse.Namespace) -> int:
    """Merge stores of the same annotator for different images."""
    with progress('Merging') as advance:
        store = merge_stores([LabelStore(path) for path in args.stores], args.out, on_batch=advance)
    print(f'{args.out}: {len(store)} images.')
    return 0


def subset(args: argparse.Namespace) -> int:
    """Write a store with some of the images of another."""
    store = LabelStore(args.store)
    if args.keys:
        keys = [line for line in read_lines(args.keys, 'The list of keys', 'surrogateescape') if line]
    elif args.images:
        keys = image_keys(images_of(args))
    else:
        keys = keys_of_classes(store, args.classes.split(','))
    with progress('Copying') as advance:
        part = subset_store(store, keys, args.out, on_batch=advance)
    print(f'{args.out}: {len(part)} of {len(store)} images.')
    return 0


def images_of(args: argparse.Namespace) -> Any:
    """Reader of the images of --images; None without that argument."""
    return open_images(args.images, args.split) if args.images else None


# Commands that resume if they are run again after a stop.
RESUMED = (import_release, export_release, merge, subset)
MAX_GRID = 256  # tokens per side; each is drawn


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Progress bar on stderr. Yields a function to call after each step, or with (number of steps, total steps)."""
    console = Console(stderr=True)
    with progress_bar(console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, images_per_step=0)
        yield lambda steps=1, total=total: bar.update(task, advance=steps, total=total)


def add_images(command: argparse.ArgumentParser, what: str, group: Any = None, **options: Any) -> None:
    """Adds the arguments for images of any layout; --images goes into `group`, if given."""
    help = f'{what}: folder, tar, wds/SHARDS or hfds/DATASET'
    (group or command).add_argument('--images', help=help, **options)
    command.add_argument('--split', default='train', help='split of the data set, if it has several (default: train)')


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    parser = Parser(prog='tokenlabel labels', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    def add(run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        name = run.__name__.replace('_', '-')
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        return command

    for run, help in ((info, 'for their class labels'), (verify, 'to check that each has a map')):
        command = add(run)
        command.add_argument('store', type=Path)
        add_images(command, f'the annotated images, {help}')

    command = add(view)
    command.add_argument('store', type=Path)
    command.add_argument('keys', nargs='+', metavar='IMAGE', help='name in the store, such as n01440764/x_1.JPEG')
    add_images(command, 'the annotated images', required=True)
    command.add_argument('--out', type=Path, required=True, metavar='FILE', help='picture to write, .png, .pdf...')
    what = 'crop whose token targets are drawn, in fractions of the image (default: the whole image)'
    command.add_argument('--crop', type=crop, default=(0.0, 0.0, 1.0, 1.0), metavar='LEFT,TOP,WIDTH,HEIGHT', help=what)
    command.add_argument(
        '--grid', type=whole(1, MAX_GRID), default=14, help='tokens per side of the crop (default: 14)'
    )

    command = add(import_release)
    command.add_argument('source', type=Path, help='folder, tar or zip of the maps')
    command.add_argument('store', type=Path, help='folder to write the label store to; an unfinished one is resumed')
    add_images(command, 'the annotated images')
    rules = [CenterCrop.name, Squash.name]
    what = (
        'area that the maps cover: the centre crop, on which the release was made, or the whole image, as its trainer'
    )
    command.add_argument('--view', choices=rules, default=rules[0], help=f'{what} assumes (default: {rules[0]})')
    command.add_argument('--size', type=side, default=576, help='input size of the annotator in pixels (default: 576)')
    command.add_argument(
        '--crop-pct', type=share, default=1.0, help='centre crop as a share of the shorter side (default: 1.0)'
    )
    command.add_argument(
        '--transposed', action='store_true', help='the maps are transposed: exchange their rows and columns'
    )
    command.add_argument('--num-classes', type=positive, default=1000, help='classes of the annotator (default: 1000)')
    add_workers(command, 'processes that read maps')

    command = add(export_release)
    command.add_argument('store', type=Path)
    command.add_argument('folder', type=Path, help='folder to write to; existing files are kept')

    command = add(merge)
    command.add_argument('out', type=Path, help='folder to write the store to; an unfinished one is resumed')
    command.add_argument('stores', type=Path, nargs='+', metavar='STORE')

    command = add(subset)
    command.add_argument('store', type=Path)
    command.add_argument('out', type=Path, help='folder to write the store to; an unfinished one is resumed')
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument('--keys', type=Path, metavar='FILE', help='keep the images whose keys FILE lists, one per line')
    which.add_argument('--classes', metavar='NAME,...', help='keep the images in class folders with these names')
    add_images(command, 'keep these images', group=which)

    command = add(check_geometry)
    command.add_argument('store', type=Path)
    command.add_argument('images', help='the annotated images: folder, tar, wds/SHARDS or hfds/DATASET')
    command.add_argument('--split', default='train', help='split of the data set, if it has several (default: train)')
    add_annotator_arguments(command, size="the store's")
    command.add_argument(
        '--crop-pct', type=share, help="centre crop as a share of the shorter side (default: the store's, else 1.0)"
    )
    command.add_argument('--samples', type=positive, default=64, help='images to annotate (default: 64)')
    return parser
