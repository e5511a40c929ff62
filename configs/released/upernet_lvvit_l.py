"""UperNet with LV-ViT-L as its authors released it: network, windows and dropout of the published score.

    wget https://github.com/zihangJiang/TokenLabeling/releases/download/v1.1-seg/upernet_lvvit_l.pth
    tokenlabel test released/upernet_lvvit_l upernet_lvvit_l.pth
    tokenlabel test released/upernet_lvvit_l upernet_lvvit_l.pth --tta

Expected on ADE20K: 50.9 mIoU, 51.8 multi-scale, 84.1 % of the pixels (published). The rest is as in
`upernet_lvvit_s.py` beside it, with a dropout of 0.5.

The released weights want undivided residual branches (`residual_divisor=1`) and a position grid of 28x28; the
classifier LV-ViT-L, and a new segmentation model that starts from it, divide by 3.
"""

_base_ = ['upernet_lvvit_s.py']

embed_dim = 768
channels = 512

model = dict(
    backbone=dict(
        arch='lvvit_l',
        img_size=(448, 448),
        out_indices=(14, 17, 20, 23),
        residual_divisor=1.0,
        mlp_drop_rate=0.5,
        init_cfg=dict(
            checkpoint='https://github.com/zihangJiang/TokenLabeling/releases/download/1.0/lvvit_l-150M-448-86.2.pth.tar'
        ),
    ),
    neck=dict(in_channels=embed_dim),
    decode_head=dict(in_channels=[embed_dim, embed_dim, embed_dim, 2048], channels=channels),
    auxiliary_head=dict(in_channels=embed_dim, channels=channels),
)
