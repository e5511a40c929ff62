"""UperNet over LV-ViT-M, from the released 448x448 classifier."""

_base_ = ['upernet_lvvit.py']

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
    neck=dict(in_channels=embed_dim),
    decode_head=dict(in_channels=[embed_dim, embed_dim, embed_dim, 2048]),
    auxiliary_head=dict(in_channels=embed_dim),
)
