"""The options that name an annotator, shared by the tools that run one."""

import argparse
from pathlib import Path
from typing import Any

import torch
from timm.utils import ParseKwargs

from tokenlabel.labels.annotator import Annotator, load_annotator


def add_annotator_arguments(parser: Any, size: str = 'at which timm evaluates it') -> None:
    """Options of an annotator, to a parser or a group; `size` says which input size is the default."""
    parser.add_argument('--annotator', required=True, metavar='NAME', help='classifier, any name that timm knows')
    parser.add_argument('--checkpoint', type=Path, help="its weights; without it timm's pretrained ones")
    parser.add_argument('--ema', action='store_true', help="take the checkpoint's EMA weights")
    parser.add_argument('--num-classes', type=positive, help='of the annotator (default: as in its weights)')
    parser.add_argument('--model-kwargs', nargs='*', default={}, action=ParseKwargs, metavar='K=V')
    parser.add_argument('--img-size', type=positive, help=f'input side in pixels (default: {size})')
    usual = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', type=device, default=usual, help='default: cuda if there is one, else cpu')


def annotator_of(args: argparse.Namespace, size: int | None = None) -> Annotator:
    """The annotator that the options name; `size` stands in for --img-size. Raises `UserError` as `load_annotator`."""
    return load_annotator(
        args.annotator,
        args.checkpoint,
        ema=args.ema,
        num_classes=args.num_classes,
        size=args.img_size or size,
        model_kwargs=args.model_kwargs,
    )


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def share(text: str) -> float:
    """A number above 0 and at most 1."""
    if not 0 < float(text) <= 1:
        raise ValueError(text)
    return float(text)


def device(text: str) -> torch.device:
    """A device that is there."""
    try:
        torch.empty(0, device=text)
        return torch.device(text)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f'there is no device {text} here') from error
