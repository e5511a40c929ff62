#!/usr/bin/env python
"""Evaluates a checkpoint with the config it was trained with.

python tools/test.py configs/upernet_lvvit.py work_dirs/upernet_lvvit/iter_160000.pth --tta
python tools/test.py configs/pretrain_lvvit_s.py lvvit_s-26M-224-83.3.pth.tar --out metrics.json
"""

import argparse
import json
import os
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import is_main_process

from mmseg_ext.dataset_check import check_datasets
from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.engine.config import explains_errors, load_config, register_imports
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError, reports_errors
from tokenlabel.files import write_atomically
from tokenlabel.models.checkpoint import load_checkpoint


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument('checkpoint', type=Path, help='weights to evaluate')
    parser.add_argument('--work-dir', type=Path, help='folder of the logs (work_dirs/CONFIG)')
    parser.add_argument('--out', type=Path, help='write the metrics to this JSON file')
    parser.add_argument('--tta', action='store_true', help='average over scales and mirrored images (segmentation)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='config entries to change: a.b=1 c.d=[2,3]')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def use_test_time_augmentation(config: Config, path: Path) -> None:
    """Puts the config's `tta_model` around its model, and its `tta_pipeline` in front."""
    if 'tta_model' not in config or 'tta_pipeline' not in config:
        raise UserError(f'Config {path} has no tta_model and tta_pipeline: leave out --tta, or add them.')
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    config.model = ConfigDict(**config.tta_model, module=config.model)


@reports_errors
def main() -> None:
    args = parse_arguments()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = load_config(args.config, args.cfg_options)
    config.work_dir = str(args.work_dir or config.get('work_dir') or Path('work_dirs', args.config.stem))
    config.launcher = args.launcher
    # weights that training would start from are about to be replaced
    config.load_from, config.resume = None, False
    register_imports(config)
    if args.tta:
        use_test_time_augmentation(config, args.config)
    with explains_errors(args.config):
        if config.get('default_scope') == 'mmseg':
            check_datasets(config, splits=('test',))
        runner = Runner.from_cfg(config)
        model = getattr(runner.model, 'module', runner.model)
        if isinstance(model, TokenLabelClassifier):
            load_checkpoint(model.model, args.checkpoint, ema=True)
        else:
            runner.load_checkpoint(str(args.checkpoint))
        metrics = {name: float(value) for name, value in runner.test().items()}
    if args.out and is_main_process():
        write_atomically(args.out, json.dumps(metrics, indent=2) + '\n')


if __name__ == '__main__':
    main()
