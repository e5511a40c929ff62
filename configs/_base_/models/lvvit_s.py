"""LV-ViT-S as the backbone of an encoder-decoder, from the released 384x384 classifier, without heads."""

window = (512, 512)  # training crop and position grid, in pixels

model = dict(
    type='BatchedEncoderDecoder',
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
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/zihangJiang/TokenLabeling/releases/download/1.0/lvvit_s-26M-384-84.4.pth.tar',
        ),
    ),
    train_cfg=dict(),
)
