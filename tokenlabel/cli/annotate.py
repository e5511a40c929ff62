"""Annotate images with a classifier and write its score maps to a label store.

    tokenlabel annotate data/imagenet/train data/imagenet_labels --annotator dm_nfnet_f6
    tools/annotate.sh 8 data/imagenet/train data/imagenet_labels --annotator dm_nfnet_f6    # on 8 GPUs

The store keeps the best scores and their classes for every location of the annotator's feature map. If the command is
stopped, run it again to resume, with any number of processes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from tokenlabel.cli.annotator_arguments import add_annotator_arguments, annotator_of
from tokenlabel.cli.boundary import reports_errors
from tokenlabel.cli.parser import Parser, add_workers, batch_size, positive, share
from tokenlabel.data.readers import open_images
from tokenlabel.errors import UserError, is_out_of_memory
from tokenlabel.labels.annotator import (
    annotator_view,
    class_names,
    map_side,
    read_class_names,
)
from tokenlabel.labels.annotator.annotation import Tally, annotate
from tokenlabel.labels.annotator.inference import PRECISIONS, Inference
from tokenlabel.labels.annotator.progress_bar import AnnotationBar
from tokenlabel.labels.class_map import match_classes
from tokenlabel.labels.store import LabelWriter, image_keys
from tokenlabel.labels.view_rule import RULES, Squash, rule_record
from tokenlabel.pictures.names import readable_names
from tokenlabel.processes.launch_environment import own_place
from tokenlabel.processes.signals import when_stopped


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    with when_stopped(lambda: 'nothing is lost, run the same command to resume.'):
        return run(args)


def run(args: argparse.Namespace) -> int:
    """Annotates the images that have no map yet; returns the exit status."""
    rank, local_rank, world = own_place()
    reader = open_images(args.images, split=args.split)
    device = own_device(args.device, local_rank)
    precision = args.precision or ('bf16' if device.type == 'cuda' else 'fp32')
    annotator = annotator_of(args)
    if not args.img_size and 'img_size' not in args.model_kwargs and annotator.size != annotator.native_size:
        say(
            rank == 0,
            f'{args.annotator} gets images of {annotator.size} pixels, because its stride does not divide '
            f'{annotator.native_size}.',
        )
    view = annotator_view(annotator, args.view, args.crop_pct)
    dense = annotator.dense.to(device)
    side = map_side(dense, annotator.size, device)
    k = args.k or min(5, dense.num_classes)
    if args.class_names:
        names = read_class_names(args.class_names, dense.num_classes)
    else:
        names = class_names(reader, dense.num_classes, annotator.class_names)
    writer = LabelWriter(
        args.store,
        image_keys(reader),
        annotator=annotator.record | {'precision': precision, 'tta': args.tta},
        num_classes=dense.num_classes,
        k=k,
        grid=(side, side),
        view=rule_record(view),
        class_names=names,
        batch_size=args.batch_size,
        rank=rank,
        world=world,
    )
    total, leader = len(writer.keys), rank == 0
    if writer.complete:
        say(leader, f'{args.store} is complete: it contains the maps of all {total} images{without(writer)}.')
        return 0
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        with (
            when_stopped(lambda: f'{writer.num_done} of {total} images are done, run the same command to resume.'),
            writer,
            AnnotationBar(writer, console, shown=leader) as bar,
        ):
            inference = Inference(
                annotator,
                view,
                k,
                device=device,
                precision=precision,
                flip=args.tta == 'flip',
                channels_last=args.channels_last,
                batch_size=writer.meta['batch_size'] if args.compile else None,
            )
            tally = annotate(
                inference,
                reader,
                writer,
                workers=args.workers,
                labels=match_classes(reader.class_names, reader.num_classes, names, dense.num_classes),
                wait_for_others=leader,
                on_unreadable=None if args.on_error == 'stop' else lambda reason: console.print(f'skipped {reason}'),
                on_batch=bar.update,
            )
            bar.finish(tally)
            say(leader and len(tally.labelled) > 1, accuracy(tally, names))
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(
                f'{device} has too little memory for batches of {writer.meta["batch_size"]} images: '
                f'remove {args.store} and choose a smaller --batch-size.'
            ) from error
        if args.compile and type(error).__module__.startswith(COMPILERS):
            reason = str(error).splitlines()[0]
            raise UserError(f'{args.annotator} cannot be compiled ({reason}): leave out --compile.') from error
        raise
    if writer.num_done < total:
        say(leader, f'{args.store}: {writer.num_done} of {total} maps are done, other processes write the rest.')
        return 0
    writer.finalise()
    maps = f'{total} maps of {side}x{side} cells, best {k} of {dense.num_classes} classes'
    say(leader, f'{args.store}: {maps}{without(writer)}.')
    return 0


COMPILERS = ('torch._dynamo', 'torch._inductor')  # modules that raise the errors of torch.compile


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    parser = Parser(prog='tokenlabel annotate', description=__doc__)
    parser.add_argument('images', help='folder, .tar, wds/SHARDS or hfds/DATASET')
    parser.add_argument('store', type=Path, help='folder to write the label store to; an unfinished one is resumed')
    parser.add_argument('--split', default='train', help='split of the data set, if it has several (default: train)')

    group = parser.add_argument_group('annotator')
    add_annotator_arguments(group)
    group.add_argument(
        '--class-names', type=Path, metavar='FILE', help="names of the annotator's classes, one per line"
    )

    group = parser.add_argument_group('maps')
    group.add_argument(
        '--view',
        choices=list(RULES),
        default=Squash.name,
        help='input of the annotator: the whole image resized to a square, its centre crop, or the whole image padded '
        'to a square (default: squash)',
    )
    group.add_argument(
        '--crop-pct', type=share, help='centre crop as a share of the shorter side (default: as timm evaluates)'
    )
    group.add_argument('--k', type=positive, help='scores kept per location (default: 5, or all if there are fewer)')
    group.add_argument(
        '--tta', choices=['flip'], help='average over the image and its mirror image; takes twice as long'
    )

    group = parser.add_argument_group('run')
    group.add_argument('--on-error', choices=['stop', 'skip'], default='stop', help='unreadable images (default: stop)')
    group.add_argument('--batch-size', type=batch_size, help='default: 64, or that of the unfinished store')
    add_workers(group, 'processes that decode images')
    group.add_argument('--precision', choices=sorted(PRECISIONS), help='default: bf16 on cuda, fp32 on cpu')
    group.add_argument(
        '--channels-last',
        action=argparse.BooleanOptionalAction,
        help='use the channels-last memory format (default: for models with feature maps)',
    )
    group.add_argument(
        '--compile', action='store_true', help='compile the model: takes minutes to start, then runs faster'
    )
    return parser


def accuracy(tally: Tally, names: Sequence[str] | None) -> str:
    """A line with the top-1 accuracy of the annotator on the images of this process, and its weakest classes."""
    if not tally.labelled:
        return ''
    readable = readable_names(names or list(map(str, range(max(tally.labelled) + 1))))
    weakest = ', '.join(f'{readable[label]} {score:.0f} %' for label, score in tally.weakest(3))
    return f'top-1 {tally.top1:.1f} % of {tally.labelled.total():,} images; weakest: {weakest}'


def own_device(device: torch.device, local_rank: int) -> torch.device:
    """The GPU of this process by its local rank, unless `device` is a CPU or has an index."""
    if device.type != 'cuda':
        return device
    index = local_rank if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise UserError(f'There are only {torch.cuda.device_count()} GPUs: start no more processes than that.')
    torch.cuda.set_device(index)
    return torch.device('cuda', index)


def without(writer: LabelWriter) -> str:
    """The number of skipped images as the end of a sentence; empty if there are none."""
    skipped = len(writer.meta['skipped'])
    return f'; {skipped} of them could not be read and have no map' if skipped else ''


def say(leader: bool, line: str) -> None:
    """Prints a line if `leader`, which is true on rank 0 only."""
    if leader:
        print(line)
