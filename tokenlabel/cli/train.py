"""Train a classifier with token labels, or a segmentation model, as a config describes.

    tokenlabel train pretrain_lvvit_s --dry-run
    tokenlabel train pretrain_lvvit_s --epochs 100 --data data/imagenet --labels data/imagenet_labels
    tokenlabel train upernet_lvvit --work-dir runs/upernet --cfg-options train_dataloader.batch_size=4
    tokenlabel train upernet_lvvit --work-dir runs/upernet --resume

A config is a file, or the name of a shipped config. `tools/pretrain.sh` and `tools/dist_train.sh` start one process per
GPU.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tokenlabel.cli.boundary import reports_errors
from tokenlabel.cli.parser import Parser
from tokenlabel.cli.training_flags import add_training_flags, training_options
from tokenlabel.engine.config.run_config import add_run_arguments, explains_errors, load_run_config
from tokenlabel.engine.dry_run import describe
from tokenlabel.engine.runner import Runner


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog='tokenlabel train', description=__doc__)
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint (default: the newest one in the work dir)',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='do not train; print length, learning rate, parameter groups and memory for WORLD_SIZE processes '
        '(default: 1)',
    )
    add_training_flags(parser)
    add_run_arguments(parser)
    return parser.parse_args(arguments)


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    args.cfg_options = training_options(args)
    config = load_run_config(args)
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    processes = int(os.environ.get('WORLD_SIZE', os.environ.get('SLURM_NTASKS', 1) if args.launcher == 'slurm' else 1))
    with explains_errors(args.config, config):
        if config.get('default_scope') == 'mmseg':
            # imported here, because pretraining does not need MMSegmentation
            from mmseg_ext.checks.before_training import prepare_training

            prepare_training(config, processes, args.dry_run)
        if args.dry_run:
            print(f'{args.config}\n{describe(config, processes)}')
            return 0
        Runner.from_cfg(config).train()
    return 0
