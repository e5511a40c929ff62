"""Runs of pretraining in two processes of this machine, one run after the other."""

import warnings
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner as AnyRunner
from torch import nn

from tests.places import CONFIGS
from tests.two_processes import in_two_processes
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.runner import Runner

CONFIG = CONFIGS / 'demo/pretrain.py'
# Images in the picture of the first batch; to draw eight takes longer than a tiny run.
PICTURED = 'custom_hooks.3.num_images'


@HOOKS.register_module()
class FrozenBatchNorm(Hook):
    """Normalises by the running statistics, which stay what they are: no image depends on the others of its batch."""

    def before_train_iter(self, runner: AnyRunner, batch_idx: int, data_batch=None) -> None:
        for module in runner.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def overridden(settings: dict, options: dict) -> dict:
    """Settings of `--cfg-options` with those of `options`; one may stand for several, as `val_dataloader=None`."""
    kept = {key: x for key, x in settings.items() if not any(key.startswith(f'{option}.') for option in options)}
    return kept | options


def settings(scenes: Path, label_store: Path, work_dir: Path, **options) -> dict:
    """Options of a run of the demo's pretraining: a tiny network, 3 iterations of 4 images, checkpoint at the end."""
    shared = {
        'work_dir': str(work_dir),
        'log_level': 'ERROR',
        'model.network.embed_dim': 32,
        'model.network.depth': 2,
        'model.network.num_heads': 2,
        'model.network.stem_width': 8,
        PICTURED: 1,
        'train_cfg.max_iters': 3,
        'train_cfg.val_interval': 3,
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_dataloader.dataset.root': str(scenes / 'imagenet/train'),
        'train_dataloader.dataset.label_store': str(label_store),
        'val_dataloader.num_workers': 0,
        'val_dataloader.dataset.root': str(scenes / 'imagenet/val'),
        'param_scheduler': None,
        'visualizer.vis_backends': [],
    }
    return overridden(shared, options)


def train(options: dict, launcher: str = 'none', path: Path = CONFIG) -> None:
    """One run; `options` as of `--cfg-options`."""
    config = load_config(path, options)
    config.experiment_name = config.visualizer.name = config.work_dir  # by which MMEngine finds what it has made before
    config.launcher = launcher
    register_imports(config)
    Runner.from_cfg(config).train()


def train_in_two_processes(runs: list[dict], path: Path = CONFIG) -> None:
    """The runs of these options one after the other, each in the same two processes."""
    in_two_processes(_train_all, runs, path)


def _train_all(rank: int, runs: list[dict], path: Path) -> None:
    warnings.simplefilter('ignore')
    for options in runs:
        train(options, 'pytorch', path)
