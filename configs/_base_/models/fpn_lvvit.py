"""Semantic FPN over LV-ViT-S: backbone, token pyramid and FPN as the neck, FPNHead."""

embed_dim = 384
fpn_channels = 256
num_classes = 150
window = (512, 512)  # training crop, position grid and sliding window, in pixels
norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=window,
        # Test images are padded to whole patches here; MMSegmentation cuts the padding off the prediction again.
        test_cfg=dict(size_divisor=16),
    ),
    backbone=dict(
        type='LVViT',
        arch='lvvit_s',
        img_size=window,
        out_indices=(6, 9, 12, 15),
        drop_path_rate=0.1,
    ),
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
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
