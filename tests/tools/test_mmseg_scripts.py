"""Our configs under MMSegmentation's own train.py and test.py, without our Runner and tools."""

from pathlib import Path

import mmseg
import pytest

from tests.conftest import ROOT
from tests.segmentation_layouts import ade20k

SCRIPTS = Path(mmseg.__file__).parent / '.mim/tools'
# A tiny network, small crops, one float32 step: MMEngine's mixed precision wants a GPU, and its SyncBatchNorm as well.
TINY = """
_base_ = ['{configs}/upernet_lvvit_t.py']
norm_cfg = dict(type='BN')
crop = (64, 64)
width = 32
model = dict(
    data_preprocessor=dict(size=crop),
    backbone=dict(
        arch=None, embed_dim=width, depth=4, num_heads=4, stem_width=8, img_size=crop, out_indices=(0, 1, 2, 3),
        init_cfg=None,
    ),
    neck=dict(in_channels=width, out_channels=width, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[width] * 4, channels=16, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=width, channels=16, norm_cfg=norm_cfg),
    test_cfg=dict(crop_size=crop, stride=(43, 43)),
)
for pipeline in (_base_.train_pipeline, _base_.test_pipeline):
    for step in pipeline:
        step.update(scale=(128, 64)) if 'scale' in step else None
        step.update(crop_size=crop) if 'crop_size' in step else None
for resize in _base_.tta_pipeline[1].transforms[0]:
    resize.update(scale=(128, 64))
data = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(data_root='{root}', pipeline=_base_.train_pipeline), **data)
val_dataloader = dict(dataset=dict(data_root='{root}', pipeline=_base_.test_pipeline), **data)
test_dataloader = val_dataloader
tta_pipeline = _base_.tta_pipeline
optim_wrapper = dict(type='OptimWrapper')
train_cfg = dict(max_iters=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""


@pytest.mark.slow
def test_a_config_trains_validates_and_tests_at_several_scales(run_tool, tmp_path):
    ade20k(tmp_path / 'ade')
    config, work_dir = tmp_path / 'tiny.py', tmp_path / 'run'
    config.write_text(TINY.replace('{configs}', str(ROOT / 'configs')).replace('{root}', str(tmp_path / 'ade')))

    def run(script: str, *arguments) -> str:
        done = run_tool(SCRIPTS / script, config, *arguments, '--work-dir', work_dir)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert 'mIoU' in run('train.py')
    assert 'mIoU' in run('test.py', work_dir / 'iter_1.pth', '--tta', '--out', tmp_path / 'predictions')
    assert len(list((tmp_path / 'predictions').iterdir())) == 2
