"""All checks of a segmentation config before training."""

import os
from pathlib import Path

import torch
from mmengine.config import Config

from mmseg_ext.checkpoints.other_classes import start_from_one_file
from mmseg_ext.checks.class_weight import settle_class_weight
from mmseg_ext.checks.config_parts import datasets_of
from mmseg_ext.checks.data_report import write_data_report
from mmseg_ext.checks.datasets import check_datasets
from mmseg_ext.checks.ignore_index import settle_ignore_index
from mmseg_ext.checks.in_channels import settle_in_channels
from mmseg_ext.checks.model import check_model
from mmseg_ext.checks.num_classes import settle_num_classes
from mmseg_ext.checks.rank_zero_log import rank_zero_log
from tokenlabel.files.writing import disk_errors


def prepare_training(config: Config, processes: int, dry_run: bool = False) -> None:
    """Completes settings that a config has in several places, and checks that data and model fit together.

    For your own folders (`ImageMaskFolders`) it also writes a report to the work dir, see `write_data_report`.

    Args:
        config: A segmentation config whose `custom_imports` are done; changed in place.
        processes: Number of training processes.
        dry_run: Skip data sets that are not on this machine, and assume one GPU per process.

    Raises:
        UserError: As `settle_num_classes`, `settle_in_channels`, `settle_ignore_index`, `check_datasets` and
            `check_model`.
    """
    start_from_one_file(config)
    settle_num_classes(config)
    settle_in_channels(config)
    settle_ignore_index(config)
    check_datasets(config, only_here=dry_run)
    settle_class_weight(config, train=not dry_run)
    check_model(config, processes, on_gpus=dry_run or torch.cuda.is_available())
    own = any(dataset.get('type') == 'ImageMaskFolders' for dataset, _, _ in datasets_of(config, 'train'))
    if own and not dry_run and config.get('work_dir') and os.environ.get('RANK', '0') == '0':
        folder = Path(config.work_dir)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for report in write_data_report(config, folder):
            for remark in report.remarks:
                rank_zero_log(f'{report.split}: {remark}')
