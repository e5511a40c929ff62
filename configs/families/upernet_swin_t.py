"""UperNet with a Swin-T backbone on ADE20K: 60 M parameters, 512x512 crops, 160k iterations of 16 images.

    tools/dist_train.sh configs/families/upernet_swin_t.py 8 \
        --cfg-options model.backbone.pretrained=work_dirs/families/pretrain_swin_t/CHECKPOINT.pth

The checkpoint is one of `pretrain_swin_t.py`; without the option the backbone starts from timm's ImageNet
weights. Expected: no score was published for token labels; 44.4 mIoU, 45.8 multi-scale, from image labels
(MMSegmentation). Costs 160k iterations with 2 images on each of 8 GPUs.

Swin's levels have strides 4, 8, 16 and 32 already: there is no neck.
"""

_base_ = [
    '../_base_/models/upernet_lvvit.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/upernet_160k.py',
    '../_base_/segmentation_runtime.py',
]

widths = [96, 192, 384, 768]

model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=32)),
    backbone=dict(
        _delete_=True,
        type='TimmTokens',
        model_name='swin_tiny_patch4_window7_224',
        img_size=(512, 512),
        out_norm=True,
        drop_path_rate=0.3,
        pretrained=True,
    ),
    neck=None,
    decode_head=dict(in_channels=widths, channels=512),
    auxiliary_head=dict(in_channels=widths[2]),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0))),
)
