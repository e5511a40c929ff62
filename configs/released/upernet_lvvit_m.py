"""UperNet with LV-ViT-M as its authors released it: network, windows and dropout of the published score.

    wget https://github.com/zihangJiang/TokenLabeling/releases/download/v1.1-seg/upernet_lvvit_m.pth
    tokenlabel test released/upernet_lvvit_m upernet_lvvit_m.pth
    tokenlabel test released/upernet_lvvit_m upernet_lvvit_m.pth --tta

Expected on ADE20K: 49.4 mIoU, 50.6 multi-scale, 83.5 % of the pixels (published). The rest is as in
`upernet_lvvit_s.py` beside it, with a dropout of 0.2.
"""

_base_ = ['upernet_lvvit_s.py']

embed_dim = 512

model = dict(
    backbone=dict(
        arch='lvvit_m',
        out_indices=(10, 13, 16, 19),
        mlp_drop_rate=0.2,
        init_cfg=dict(
            checkpoint='https://github.com/zihangJiang/TokenLabeling/releases/download/1.0/lvvit_m-56M-448-85.5.pth.tar'
        ),
    ),
    neck=dict(in_channels=embed_dim),
    decode_head=dict(in_channels=[embed_dim, embed_dim, embed_dim, 2048]),
    auxiliary_head=dict(in_channels=embed_dim),
)
