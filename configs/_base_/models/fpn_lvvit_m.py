"""Semantic FPN over LV-ViT-M, from the released 448x448 classifier."""

_base_ = ['fpn_lvvit.py']

embed_dim = 512

model = dict(
    backbone=dict(
        arch='lvvit_m',
        out_indices=(10, 13, 16, 19),
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://github.com/zihangJiang/TokenLabeling/releases/download/1.0/lvvit_m-56M-448-85.5.pth.tar',
        ),
    ),
    neck=dict(
        pyramid=dict(in_channels=embed_dim, out_channels=embed_dim),
        fpn=dict(in_channels=[embed_dim] * 4),
    ),
)
