"""UperNet over LV-ViT-L, from the released 512x512 classifier, and heads of 512 channels."""

_base_ = ['upernet_lvvit.py']

embed_dim = 768

model = dict(
    backbone=dict(
        arch='lvvit_l',
        out_indices=(14, 17, 20, 23),
        drop_path_rate=0.5,
        init_cfg=dict(
            checkpoint='https://github.com/zihangJiang/TokenLabeling/releases/download/1.0/lvvit_l-150M-512-86.4.pth.tar',
        ),
    ),
    neck=dict(in_channels=embed_dim),
    decode_head=dict(in_channels=[embed_dim, embed_dim, embed_dim, 2048], channels=512),
    auxiliary_head=dict(in_channels=embed_dim, channels=512),
)
