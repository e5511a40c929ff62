"""The UperNet configs with a network so small that it trains in seconds, on 64 x 64 crops and one process."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from tests.places import CONFIGS
from tests.segmentation_layouts import ade20k
from tokenlabel.engine.config.run_config import load_config

# What a config has to say over `model` of `_base_/models/upernet_lvvit.py`.
MODEL = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        arch=None,
        embed_dim=32,
        depth=4,
        num_heads=4,
        stem_width=8,
        img_size=64,
        out_indices=(0, 1, 2, 3),
        init_cfg=None,
    ),
    neck=dict(in_channels=32, out_channels=32, norm_cfg=dict(type='BN')),
    decode_head=dict(in_channels=[32] * 4, channels=16, norm_cfg=dict(type='BN')),
    auxiliary_head=dict(in_channels=32, channels=16, norm_cfg=dict(type='BN')),
    test_cfg=dict(crop_size=(64, 64), stride=(43, 43)),
)
# Text of a config file below one that inherits a data set with its pipelines.
TEXT = f"""
model = {MODEL}
for step in _base_.train_pipeline + _base_.test_pipeline + _base_.tta_pipeline[1]['transforms'][0]:
    step.update({{key: (128, 64) if key == 'scale' else (64, 64) for key in ('scale', 'crop_size') if key in step}})
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(pipeline=_base_.train_pipeline)
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
tta_pipeline = _base_.tta_pipeline
train_cfg = dict(max_iters=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


def tiny_config(folder: Path) -> Config:
    """The UperNet config at this size, on two images of 75 x 65 and 66 x 85 pixels below `folder`."""
    ade20k(folder / 'ade')
    (folder / 'tiny.py').write_text(f"_base_ = ['{CONFIGS}/upernet_lvvit_t.py']\n{TEXT}")
    roots = {f'{split}_dataloader.dataset.data_root': f'{folder}/ade' for split in ('train', 'val', 'test')}
    config = load_config(folder / 'tiny.py', roots | {'work_dir': str(folder / 'run'), 'log_level': 'WARNING'})
    config.visualizer.vis_backends = []
    config.experiment_name = folder.name
    return config


def own_config(folder: Path, classes: Sequence[str], changes: str) -> Path:
    """`configs/custom.py` on `folder/data` as `mine.py`, and with a tiny network and changes as `tiny.py`: its path."""
    text = (CONFIGS / 'custom.py').read_text()
    for old, new in (
        ("images = 'data/mine/images'", f"images = '{folder}/data/images'"),
        ("masks = 'data/mine/masks'", f"masks = '{folder}/data/masks'"),
        ("['background', 'leaf', 'fruit']", repr(list(classes))),
        ("'_base_/", f"'{CONFIGS}/_base_/"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / 'mine.py').write_text(text)
    path = folder / 'tiny.py'
    path.write_text(f"_base_ = ['mine.py']\n{TEXT}\n{changes}\n")
    return path
