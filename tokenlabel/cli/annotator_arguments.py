"""Arguments that select an annotator, shared by all commands that run one."""

import argparse
from pathlib import Path
from typing import Any

import torch

from tokenlabel.cli.parser import ModelKwargs, device, positive, side
from tokenlabel.labels.annotator import Annotator, load_annotator


def add_annotator_arguments(parser: Any, size: str = 'at which timm evaluates it') -> None:
    """Adds the arguments to a parser or a group; `size` describes the default input size in the help."""
    parser.add_argument('--annotator', required=True, metavar='NAME', help='classifier, a model name of timm')
    parser.add_argument('--checkpoint', type=Path, help="weights of the annotator (default: timm's pretrained weights)")
    parser.add_argument('--ema', action='store_true', help='use the EMA weights of the checkpoint')
    parser.add_argument('--num-classes', type=positive, help='classes of the annotator (default: as in its weights)')
    parser.add_argument(
        '--model-kwargs', nargs='*', default={}, action=ModelKwargs, metavar='K=V', help='arguments of the network'
    )
    parser.add_argument('--img-size', type=side, help=f'input side in pixels (default: {size})')
    usual = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', type=device, default=usual, help='default: cuda if there is one, else cpu')


def annotator_of(args: argparse.Namespace, size: int | None = None) -> Annotator:
    """Loads the annotator that the arguments select; `size` is the default of --img-size.

    Raises:
        UserError: as `load_annotator`.
    """
    return load_annotator(
        args.annotator,
        args.checkpoint,
        ema=args.ema,
        num_classes=args.num_classes,
        size=args.img_size or size,
        model_kwargs=args.model_kwargs,
    )
