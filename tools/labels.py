"""Look into label stores, check, convert and combine them.

    python tools/labels.py info data/imagenet_labels
    python tools/labels.py verify data/imagenet_labels --images data/imagenet/train

`python tools/labels.py COMMAND --help` tells more of each command.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tokenlabel.data.images import open_folder
from tokenlabel.errors import reports_errors
from tokenlabel.labels.annotator import class_names
from tokenlabel.labels.statistics import describe_store, image_labels, store_statistics
from tokenlabel.labels.store import LabelStore
from tokenlabel.labels.store_files import num_shards
from tokenlabel.labels.verification import num_files, verify_store


@reports_errors
def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print('Stopped.', file=sys.stderr)
        return 130


def info(args: argparse.Namespace) -> int:
    """What a store holds, and a histogram of its best scores."""
    store = LabelStore(args.store)
    reader = images_of(args)
    names = store.class_names or (class_names(reader, store.num_classes) if reader else None)
    with progress('Reading', num_shards(store.meta)) as advance:
        statistics = store_statistics(store, image_labels(store, names), on_shard=advance)
    print(describe_store(store, statistics))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check every file and number of a store, and that every image has a map; exit status 1 if anything is wrong."""
    reader = images_of(args)
    with progress('Checking', num_files(args.store)) as advance:
        problems = verify_store(args.store, reader, on_file=advance)
    for problem in problems:
        print(problem)
    if not problems:
        print(f'{args.store} is sound.')
    return int(bool(problems))


def images_of(args: argparse.Namespace) -> Any:
    """Reader of the folder given by --images; None where it is not given."""
    return open_folder(args.images) if args.images else None


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar on stderr; what it yields is called after each step, or with a number of steps."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps=1: bar.advance(task, steps)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    def add(run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        name = run.__name__.replace('_', '-')
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        return command

    for run, help in ((info, 'to know the classes of the images'), (verify, 'to know which maps there should be')):
        command = add(run)
        command.add_argument('store', type=Path)
        command.add_argument('--images', type=Path, help=f'folder of the annotated images, {help}')
    return parser


if __name__ == '__main__':
    sys.exit(main())
