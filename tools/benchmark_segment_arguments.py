"""Arguments of `benchmark.py segment`, apart from what it measures: that needs MMSegmentation to be imported."""

import argparse
from pathlib import Path

import torch

from command_line import batch_size, device_name, positive, side

CONFIG = Path(__file__).parents[1] / 'configs/upernet_lvvit.py'


def add_segment_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, images and how ours is run."""
    cuda = torch.cuda.is_available()
    parser.add_argument('--device', type=device_name, default='cuda' if cuda else 'cpu')
    parser.add_argument('--config', type=Path, default=CONFIG, help='whose model and test_cfg are taken')
    parser.add_argument('--height', type=side, default=512, help='of an image, in pixels')
    parser.add_argument('--width', type=side, default=683)
    parser.add_argument('--classes', type=positive, default=150)
    parser.add_argument('--images', type=positive, default=16 if cuda else 1, help='in a run')
    parser.add_argument('--batch', type=batch_size, default=8 if cuda else 1, help='images per batch, ours')
    parser.add_argument('--windows-per-batch', type=positive, default=16 if cuda else 1, help='ours')
    parser.add_argument('--precision', choices=['bfloat16', 'float16'], help='ours; float32 without')
    parser.add_argument('--runs', type=positive, default=10 if cuda else 5, help='timed pairs after one warm-up')
