"""The demo's Semantic FPN over its pretrained LV-ViT.

tools/dist_train.sh configs/demo/fpn.py 1
"""

_base_ = ['../_base_/models/fpn_lvvit.py', 'scenes_segmentation.py']

work_dir = 'work_dirs/demo/fpn'

embed_dim = 96
fpn_channels = 64

model = dict(
    num_classes=11,
    data_preprocessor=dict(size=(64, 64), test_cfg=dict(size_divisor=8)),
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(
        pyramid=dict(in_channels=embed_dim, out_channels=embed_dim),
        fpn=dict(in_channels=[embed_dim] * 4, out_channels=fpn_channels),
    ),
    decode_head=dict(in_channels=[fpn_channels] * 4, channels=64),
)
