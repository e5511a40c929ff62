"""Semantic FPN over LV-ViT-S: backbone, token pyramid and FPN as the neck, FPNHead."""

_base_ = ['lvvit_s.py']

embed_dim = 384
fpn_channels = 256
norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    num_classes=150,
    neck=dict(
        type='TokenPyramidFPN',
        pyramid=dict(in_channels=embed_dim, out_channels=embed_dim, norm_cfg=norm_cfg),
        fpn=dict(in_channels=[embed_dim] * 4, out_channels=fpn_channels, num_outs=4),
    ),
    decode_head=dict(
        type='FPNHead',
        in_channels=[fpn_channels] * 4,
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 16],
        channels=128,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    test_cfg=dict(mode='whole'),
)
