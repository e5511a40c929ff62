"""UperNet on CamVid over the small LV-ViT.

tools/dist_train.sh configs/camvid/upernet.py 1
"""

_base_ = ['../_base_/models/upernet_lvvit.py', 'camvid.py']

embed_dim = 192

model = dict(
    num_classes=11,
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(in_channels=embed_dim, out_channels=embed_dim),
    decode_head=dict(in_channels=[embed_dim] * 4, channels=64),
    auxiliary_head=dict(in_channels=embed_dim, channels=64),
    test_cfg=dict(_delete_=True, mode='whole'),
)
