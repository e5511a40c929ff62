"""Compare the speed of this project with a straightforward implementation in the same run.

tokenlabel benchmark labels     # write and read label maps: label store against one file per image
tokenlabel benchmark loader     # load training batches: this loader against torchvision's transforms
tokenlabel benchmark loss       # token targets and loss: sparse against dense
tokenlabel benchmark segment    # evaluate a segmentation model: batched windows against MMSegmentation
tokenlabel benchmark step       # a training step, compiled or not, against a straightforward one
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

import torch

from tokenlabel.cli.boundary import reports_errors
from tokenlabel.cli.parser import (
    Parser,
    add_workers,
    batch_size,
    device_name,
    fraction,
    positive,
    positive_real,
    side,
)

PRECISIONS = ('bf16', 'fp16', 'fp32')


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog='tokenlabel benchmark', description=__doc__)
    commands = parser.add_subparsers(dest='what', required=True)
    add_labels_arguments(commands.add_parser('labels'))
    add_loader_arguments(commands.add_parser('loader'))
    add_loss_arguments(commands.add_parser('loss'))
    add_segment_arguments(commands.add_parser('segment'))
    add_step_arguments(commands.add_parser('step'))
    args = parser.parse_args(arguments)
    # imported here, because each benchmark needs other packages
    module = importlib.import_module(f'tokenlabel.benchmarks.{args.what}')
    getattr(module, f'benchmark_{args.what}')(args)
    return 0


def add_labels_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `labels`; the defaults are the size of ImageNet and a small annotator."""
    cuda = torch.cuda.is_available()
    parser.add_argument('--device', type=device_name, default='cuda' if cuda else 'cpu')
    parser.add_argument(
        '--annotator', default='dm_nfnet_f0' if cuda else 'resnet18', help='created with random weights'
    )
    parser.add_argument('--img-size', type=side, default=576 if cuda else 224)
    parser.add_argument('--images', type=positive, default=2048 if cuda else 192, help='images to annotate per run')
    parser.add_argument('--precision', choices=sorted(PRECISIONS), default='bf16')
    parser.add_argument('--batch-size', type=batch_size, default=64)
    add_workers(parser, 'processes that decode images')
    parser.add_argument('--maps', type=positive, default=4000, help='maps to read from a store and from single files')
    parser.add_argument('--entries', type=positive, default=1_281_167, help='images of the large store to open')
    parser.add_argument('--runs', type=positive, default=3, help='timed pairs')


def add_loader_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `loader`."""
    parser.add_argument('--width', type=side, default=500, help='width of the image files in pixels')
    parser.add_argument('--height', type=side, default=375, help='height of the image files in pixels')
    parser.add_argument('--images', type=positive, default=256, help='images per run')
    parser.add_argument('--batch', type=batch_size, default=64)
    parser.add_argument('--img-size', type=side, default=224)
    parser.add_argument('--auto-augment', default='rand-m9-mstd0.5-inc1')
    parser.add_argument(
        '--device',
        type=device_name,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='device that preprocesses the batches',
    )
    parser.add_argument('--runs', type=positive, default=5, help='timed pairs after one warm-up')


def add_loss_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `loss`."""
    parser.add_argument('--device', type=device_name, default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--batch', type=batch_size, default=64)
    parser.add_argument('--classes', type=positive, default=1000)
    parser.add_argument('--grid', type=positive, default=14, help='tokens per side')
    parser.add_argument('--cells', type=positive, default=18, help='cells of a score map per side')
    parser.add_argument('--k', type=positive, default=5, help='scores per cell')
    parser.add_argument(
        '--dtype', choices=['float32', 'bfloat16', 'float16'], default='float32', help='dtype of the logits'
    )
    parser.add_argument('--runs', type=positive, default=5, help='timed pairs after one warm-up')


def add_segment_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `segment`."""
    cuda = torch.cuda.is_available()
    parser.add_argument('--device', type=device_name, default='cuda' if cuda else 'cpu')
    parser.add_argument('--config', type=Path, default=Path('upernet_lvvit'), help='config of model and test_cfg')
    parser.add_argument('--height', type=side, default=512, help='height of the images in pixels')
    parser.add_argument('--width', type=side, default=683)
    parser.add_argument('--classes', type=positive, default=150)
    parser.add_argument('--images', type=positive, default=16 if cuda else 1, help='images per run')
    parser.add_argument('--batch', type=batch_size, default=8 if cuda else 1, help='images per batch of this project')
    parser.add_argument('--windows-per-batch', type=positive, default=16 if cuda else 1, help='of this project')
    parser.add_argument('--precision', choices=['bfloat16', 'float16'], help='of this project (default: float32)')
    parser.add_argument('--runs', type=positive, default=10 if cuda else 5, help='timed pairs after one warm-up')


def add_step_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `step`."""
    cuda = torch.cuda.is_available()
    parser.add_argument('--device', type=device_name, default='cuda' if cuda else 'cpu')
    parser.add_argument('--model', default='lvvit_s', help='name of an LV-ViT')
    parser.add_argument('--batch', type=batch_size, default=128 if cuda else 4)
    parser.add_argument('--img-size', type=side, default=224)
    parser.add_argument('--classes', type=positive, default=1000)
    parser.add_argument('--drop-path', type=fraction, default=0.1)
    parser.add_argument('--runs', type=positive, default=20 if cuda else 5, help='timed pairs after two warm-ups')
    parser.add_argument(
        '--compile', nargs='?', const='inductor', default=False, help="compile this project's network with this backend"
    )
    parser.add_argument('--grad-checkpointing', action='store_true', help="in this project's network")
    parser.add_argument(
        '--peak-tflops', type=positive_real, help='bfloat16 peak of the device (default: that of known NVIDIA GPUs)'
    )
