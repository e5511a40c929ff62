"""A run of pretraining on tiny data."""

import pytest

from tests.places import CONFIGS
from tests.training_processes import PICTURED, overridden
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.runner import Runner


@pytest.fixture
def make_runner(scenes, label_store, tmp_path):
    """A runner of the demo's pretraining on tiny data: 3 iterations of 8 images unless told otherwise."""

    def make(iterations: int = 3, **options) -> Runner:
        settings = {
            'work_dir': str(tmp_path / 'run'),
            'log_level': 'ERROR',
            'train_cfg.max_iters': iterations,
            'train_cfg.val_interval': iterations,
            'default_hooks.logger.interval': 1,
            PICTURED: 1,
            'train_dataloader.batch_size': 8,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.dataset.root': str(scenes / 'imagenet/train'),
            'train_dataloader.dataset.label_store': str(label_store),
            'visualizer.vis_backends': [{'type': 'LocalVisBackend'}],
        }
        for split in ('val', 'test'):
            settings |= {
                f'{split}_dataloader.num_workers': 0,
                f'{split}_dataloader.dataset.root': str(scenes / 'imagenet/val'),
            }
        config = load_config(CONFIGS / 'demo/pretrain.py', overridden(settings, options))
        config.experiment_name = tmp_path.name + str(len(options)) + str(iterations)
        register_imports(config)
        return Runner.from_cfg(config)

    return make
