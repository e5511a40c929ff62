"""Semantic FPN with an LV-ViT-S backbone on Cityscapes: 768x768 crops, 80k iterations of 8 images.

    tools/dist_train.sh configs/cityscapes/fpn_lvvit.py 8
    tools/dist_test.sh configs/cityscapes/fpn_lvvit.py work_dirs/cityscapes/fpn_lvvit/iter_80000.pth 8 --tta

No score was published. 215 passes over the 2,975 training images, 203 GMACs per crop.
`_base_/datasets/cityscapes.py` says where the images are. For another size, name `_base_/models/fpn_lvvit_{t,m,l}.py`
as the first base.
"""

_base_ = [
    '../_base_/models/fpn_lvvit.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/fpn_80k.py',
    '../_base_/segmentation_runtime.py',
]

crop_size = (768, 768)

model = dict(
    num_classes=19,
    data_preprocessor=dict(size=crop_size),
    backbone=dict(img_size=crop_size),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(512, 512)),
)
