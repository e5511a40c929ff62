"""UperNet with a DeiT-S backbone on ADE20K: 41 M parameters, 512x512 crops, 160k iterations of 16 images.

    tools/dist_train.sh configs/families/upernet_deit_s.py 8 \
        --cfg-options model.backbone.pretrained=work_dirs/families/pretrain_deit_s/CHECKPOINT.pth

The checkpoint is one of `pretrain_deit_s.py`; without the option the backbone starts from timm's ImageNet
weights. Expected: no score was published for token labels. MMSegmentation publishes 43.8 mIoU, 45.1 multi-scale, for
DeiT-S from image labels, with a pyramid of its own. Costs 160k iterations with 2 images on each of 8 GPUs.
"""

_base_ = [
    '../_base_/models/upernet_lvvit.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/upernet_160k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmTokens',
        model_name='deit_small_patch16_224',
        img_size=(512, 512),
        out_indices=(2, 5, 8, 11),
        drop_path_rate=0.1,
        pretrained=True,
    ),
    neck=dict(strides=(4, 8, 16, 32)),
)
