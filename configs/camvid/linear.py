"""A linear classifier of each token on CamVid, the small LV-ViT below it frozen: what its tokens hold by themselves.

tools/dist_train.sh configs/camvid/linear.py 1
"""

_base_ = ['../_base_/models/lvvit_s.py', 'camvid.py']

embed_dim = 192

model = dict(
    num_classes=11,
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(_delete_=True, **_base_.backbone, frozen_stages=6),
    decode_head=dict(
        type='FCNHead',
        in_channels=embed_dim,
        in_index=3,
        channels=embed_dim,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    test_cfg=dict(mode='whole'),
)
