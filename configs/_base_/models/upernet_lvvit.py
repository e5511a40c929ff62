"""UperNet over LV-ViT-S: backbone, token pyramid, UPerHead, and an auxiliary FCNHead on level 2."""

_base_ = ['lvvit_s.py']

embed_dim = 384
top_channels = 2048
norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    num_classes=150,
    neck=dict(type='TokenPyramid', in_channels=embed_dim, out_channels=top_channels, norm_cfg=norm_cfg),
    decode_head=dict(
        type='UPerHead',
        in_channels=[embed_dim, embed_dim, embed_dim, top_channels],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=256,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=embed_dim,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
