"""A run of segmentation on tiny data."""

from pathlib import Path

import pytest
from mmengine.config.utils import MODULE2PACKAGE

from tests.engine.resuming.interruptions import EndAt, Ended
from tests.places import CONFIGS
from tests.training_processes import overridden
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.runner import Runner

CONFIG = CONFIGS / 'demo/fpn.py'
# As for the public data sets, on 64 x 64 images.
AUGMENTED = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadLabelMap', num_classes=11),
    dict(type='RandomResize', scale=(256, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]


def segmentation_settings(scenes: Path, work_dir: Path, workers: int = 0) -> dict:
    """Options of a run of the demo's Semantic FPN: 6 iterations of 4 images, two an epoch."""
    settings = {
        'log_level': 'ERROR',
        'work_dir': str(work_dir),
        'randomness': {'seed': 0},
        'model.backbone.init_cfg': None,
        'train_cfg.max_iters': 6,
        'train_cfg.val_interval': 100,
        'default_hooks.checkpoint.interval': 2,
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': workers,
        'train_dataloader.persistent_workers': False,
        'train_dataloader.dataset.pipeline': AUGMENTED,
        'val_dataloader.num_workers': 0,
        'visualizer.vis_backends': [{'type': 'LocalVisBackend'}],
    }
    return settings | {f'{split}_dataloader.dataset.data_root': f'{scenes}/ade' for split in ('train', 'val')}


@pytest.fixture
def run_segmentation(scenes, tmp_path, monkeypatch):
    """Fine-tunes for 6 iterations, two an epoch; `ends` is when the run is killed."""
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', MODULE2PACKAGE['mmseg'])

    def run(folder: str, ends: EndAt | None = None, workers: int = 0, **options) -> Path:
        settings = segmentation_settings(scenes, tmp_path / folder, workers)
        config = load_config(CONFIG, overridden(settings, options))
        config.experiment_name = config.visualizer.name = f'{tmp_path.name}/{folder}/{len(options)}'
        register_imports(config)
        runner = Runner.from_cfg(config)
        if ends is None:
            runner.train()
        else:
            runner.register_hook(ends)
            with pytest.raises(Ended):
                runner.train()
        return Path(runner.work_dir)

    return run
