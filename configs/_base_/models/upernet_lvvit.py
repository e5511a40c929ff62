"""UperNet over LV-ViT-S: backbone, token pyramid, UPerHead, and an auxiliary FCNHead on level 2."""

embed_dim = 384
top_channels = 2048
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
    neck=dict(type='TokenPyramid', in_channels=embed_dim, out_channels=top_channels, norm_cfg=norm_cfg),
    decode_head=dict(
        type='UPerHead',
        in_channels=[embed_dim, embed_dim, embed_dim, top_channels],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=256,
        dropout_ratio=0.1,
        num_classes=num_classes,
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
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=window, stride=(341, 341)),
)
