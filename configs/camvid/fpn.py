"""Semantic FPN on CamVid over the small LV-ViT.

tools/dist_train.sh configs/camvid/fpn.py 1
"""

_base_ = ['../_base_/models/fpn_lvvit.py', 'camvid.py']

embed_dim = 192
fpn_channels = 64

model = dict(
    num_classes=11,
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(
        pyramid=dict(in_channels=embed_dim, out_channels=embed_dim),
        fpn=dict(in_channels=[embed_dim] * 4, out_channels=fpn_channels),
    ),
    decode_head=dict(in_channels=[fpn_channels] * 4, channels=64),
)
