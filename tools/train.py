#!/usr/bin/env python
"""Trains what a config describes: pretraining with token labels, or segmentation.

python tools/train.py configs/pretrain_lvvit_s.py
python tools/train.py configs/upernet_lvvit.py --work-dir runs/upernet --cfg-options train_dataloader.batch_size=4
"""

import argparse
import os
from pathlib import Path

from mmengine.config import DictAction

from mmseg_ext.dataset_check import check_datasets
from tokenlabel.engine.config import explains_errors, load_config, register_imports
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import reports_errors


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument('--work-dir', type=Path, help='folder of logs and checkpoints (work_dirs/CONFIG)')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or from the newest in the work dir when none is named',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='config entries to change: a.b=1 c.d=[2,3]')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


@reports_errors
def main() -> None:
    args = parse_arguments()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = load_config(args.config, args.cfg_options)
    config.work_dir = str(args.work_dir or config.get('work_dir') or Path('work_dirs', args.config.stem))
    config.launcher = args.launcher
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    register_imports(config)
    with explains_errors(args.config):
        if config.get('default_scope') == 'mmseg':
            check_datasets(config)
        Runner.from_cfg(config).train()


if __name__ == '__main__':
    main()
