"""Configs that users write, inheriting ours or MMSegmentation's, through the tools."""

import pytest

from tests.places import CONFIGS

pytestmark = pytest.mark.distributions


INHERITS_OURS = """
_base_ = ['{configs}/upernet_lvvit.py']
model = dict(backbone=dict(drop_path_rate=0.3, init_cfg=None))
"""
INHERITS_MMSEG = """
_base_ = ['mmseg::vit/vit_deit-s16_upernet_8xb2-80k_ade20k-512x512.py']
custom_imports = dict(imports=['mmseg_ext'], allow_failed_imports=False)
norm_cfg = dict(type='SyncBN')
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='LVViT', arch='lvvit_t', out_indices=(2, 5, 8, 11)),
    neck=dict(_delete_=True, type='TokenPyramid', in_channels=240, out_channels=64, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[240, 240, 240, 64], channels=32),
    auxiliary_head=dict(in_channels=64, channels=32),
)
"""
# One step on small crops, and testing at two scales.
SMALL = """
model.update(data_preprocessor=dict(size=(128, 128)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomCrop', crop_size=(128, 128)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=factor, keep_ratio=True) for factor in (0.5, 1.0)],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='{ade}', pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='{ade}', pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


@pytest.mark.slow
@pytest.mark.parametrize('text', [INHERITS_OURS, INHERITS_MMSEG], ids=['ours', 'mmseg::'])
def test_a_config_of_a_user_trains_and_tests_at_several_scales(text, run_here, ade20k, tmp_path):
    config, work_dir = tmp_path / 'mine.py', tmp_path / 'run'
    config.write_text((text + SMALL).replace('{configs}', str(CONFIGS)).replace('{ade}', str(ade20k)))
    done = run_here('train', config, '--work-dir', work_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    command = ['test', config, work_dir / 'iter_1.pth', '--tta', '--out', tmp_path / 'metrics.json']
    done = run_here(*command, '--work-dir', work_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'mIoU' in (tmp_path / 'metrics.json').read_text()
