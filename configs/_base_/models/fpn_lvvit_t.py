"""Semantic FPN over LV-ViT-T, from the released 224x224 classifier.

No blocks were published for T: every third of its twelve is taken.
"""

_base_ = ['fpn_lvvit.py']

embed_dim = 240

model = dict(
    backbone=dict(
        arch='lvvit_t',
        out_indices=(2, 5, 8, 11),
        init_cfg=dict(
            checkpoint='https://github.com/zihangJiang/TokenLabeling/releases/download/v0.2.0/lvvit_t.pth',
        ),
    ),
    neck=dict(
        pyramid=dict(in_channels=embed_dim, out_channels=embed_dim),
        fpn=dict(in_channels=[embed_dim] * 4),
    ),
)
