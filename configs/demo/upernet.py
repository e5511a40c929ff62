"""The demo's UperNet over its pretrained LV-ViT.

tools/dist_train.sh configs/demo/upernet.py 1
"""

_base_ = ['../_base_/models/upernet_lvvit.py', 'scenes_segmentation.py']

work_dir = 'work_dirs/demo/upernet'

embed_dim = 96

model = dict(
    num_classes=11,
    data_preprocessor=dict(size=(64, 64), test_cfg=dict(size_divisor=8)),
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(in_channels=embed_dim, out_channels=embed_dim),
    decode_head=dict(in_channels=[embed_dim] * 4, channels=64, dropout_ratio=0.0),
    auxiliary_head=dict(in_channels=embed_dim, channels=32),
    test_cfg=dict(_delete_=True, mode='whole'),
)
# UperNet's deep head starts slowly: it learns fast on tokens that hardly move. On scenes of bare digits one rate of
# 1e-3 for all left it at the background after 400 steps.
optim_wrapper = dict(
    optimizer=dict(lr=1e-2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.01))),
)
