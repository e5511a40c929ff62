"""UperNet with an LV-ViT-S backbone on Pascal Context (59 classes): 480x480 crops, 80k iterations of 16 images.

    tools/dist_train.sh configs/pascal_context/upernet_lvvit.py 8
    tools/dist_test.sh configs/pascal_context/upernet_lvvit.py \\
        work_dirs/pascal_context/upernet_lvvit/iter_80000.pth 8 --tta

No score was published. 256 passes over the 4,998 training images, 98 GMACs per crop.
`_base_/datasets/pascal_context.py` says where the images are. For another size, name
`_base_/models/upernet_lvvit_{t,m,l}.py` as the first base.
"""

_base_ = [
    '../_base_/models/upernet_lvvit.py',
    '../_base_/datasets/pascal_context.py',
    '../_base_/schedules/upernet_80k.py',
    '../_base_/segmentation_runtime.py',
]

crop_size = (480, 480)

model = dict(
    num_classes=59,
    data_preprocessor=dict(size=crop_size),
    backbone=dict(img_size=crop_size),
    test_cfg=dict(crop_size=crop_size, stride=(320, 320)),
)
