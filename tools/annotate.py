"""Write the score maps of a machine annotator for a folder of images into a label store.

    python tools/annotate.py data/imagenet/train data/imagenet_labels --annotator dm_nfnet_f6

Each image is squeezed whole to the annotator's square input; the best scores and their classes are kept at every
location of its feature map. Stopped at any moment, the same command goes on where it was.
"""

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from timm.utils import ParseKwargs

from tokenlabel.data.images import open_folder
from tokenlabel.errors import UserError, reports_errors
from tokenlabel.labels.annotation import PRECISIONS, annotate
from tokenlabel.labels.annotator import class_names, load_annotator, map_side
from tokenlabel.labels.store import LabelWriter, image_keys


@reports_errors
def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    reader = open_folder(args.images)
    device = usable_device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    precision = args.precision or ('bf16' if device.type == 'cuda' else 'fp32')
    annotator = load_annotator(
        args.annotator,
        args.checkpoint,
        ema=args.ema,
        num_classes=args.num_classes,
        size=args.img_size,
        model_kwargs=args.model_kwargs,
    )
    dense = annotator.dense.to(device)
    side = map_side(dense, annotator.size, device)
    writer = LabelWriter(
        args.store,
        image_keys(reader),
        annotator=annotator.record | {'precision': precision},
        num_classes=dense.num_classes,
        k=args.k,
        grid=(side, side),
        view={'rule': 'squash', 'size': annotator.size},
        class_names=class_names(reader, dense.num_classes),
        batch_size=args.batch_size,
    )
    total = len(writer.keys)
    if writer.complete:
        print(f'{args.store} is done: it holds the maps of all {total} images.')
        return 0
    console = Console(stderr=True)
    with writer, progress_bar(console) as bar:
        task = bar.add_task('Annotating', total=total, completed=writer.num_done)
        try:
            annotate(
                dense,
                reader,
                writer,
                annotator.mean,
                annotator.std,
                device=device,
                precision=precision,
                workers=args.workers,
                on_batch=lambda count: bar.advance(task, count),
            )
        except KeyboardInterrupt:
            console.print(f'Stopped after {writer.num_done} of {total} images; the same command goes on from there.')
            return 130
        except torch.OutOfMemoryError as error:
            raise UserError(
                f'{device} has no memory for batches of {writer.meta["batch_size"]} images: remove {args.store} and '
                'choose a smaller --batch-size.'
            ) from error
        writer.finalise()
    print(f'{args.store}: {total} maps of {side}x{side} cells, best {args.k} of {dense.num_classes} classes.')
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', type=Path, help='folder of class folders of images')
    parser.add_argument('store', type=Path, help='folder to write the label store to; an unfinished one is resumed')
    parser.add_argument('--annotator', required=True, metavar='NAME', help='classifier, any name that timm knows')
    parser.add_argument('--checkpoint', type=Path, help="its weights; without it timm's pretrained ones")
    parser.add_argument('--ema', action='store_true', help="take the checkpoint's EMA weights")
    parser.add_argument('--num-classes', type=positive, help='of the annotator (default: as in its weights)')
    parser.add_argument('--model-kwargs', nargs='*', default={}, action=ParseKwargs, metavar='K=V')
    parser.add_argument('--img-size', type=positive, help='input side in pixels (default: at which timm evaluates it)')
    parser.add_argument('--k', type=positive, default=5, help='scores kept per location (default: 5)')
    parser.add_argument('--batch-size', type=positive, help='default: 64, or what the store was begun with')
    parser.add_argument('--workers', type=int, default=4, help='processes that decode images (default: 4)')
    parser.add_argument('--device', help='default: cuda if there is one, else cpu')
    parser.add_argument('--precision', choices=sorted(PRECISIONS), help='default: bf16 on cuda, fp32 on cpu')
    return parser


def usable_device(name: str) -> torch.device:
    """The device of this name. Raises `UserError` where there is none."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'There is no device {name} here: leave out --device, or give cpu.') from error


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


class ImagesPerSecond(ProgressColumn):
    """Speed of late."""

    def render(self, task: Task) -> Text:
        return Text('' if task.speed is None else f'{task.speed:.0f} images/s')


def progress_bar(console: Console) -> Progress:
    """Bar with counts, speed and time left."""
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        ImagesPerSecond(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


if __name__ == '__main__':
    sys.exit(main())
