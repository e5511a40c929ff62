"""UperNet with an LV-ViT-S backbone on Pascal VOC 2012 + Aug: 512x512 crops, 40k iterations of 16 images.

    tools/dist_train.sh configs/voc12/upernet_lvvit.py 8
    tools/dist_test.sh configs/voc12/upernet_lvvit.py work_dirs/voc12/upernet_lvvit/iter_40000.pth 8 --tta

No score was published. 60 passes over the 10,582 training images, 113 GMACs per crop.
`_base_/datasets/voc12_aug.py` says where the images are. For another size, name
`_base_/models/upernet_lvvit_{t,m,l}.py` as the first base.
"""

_base_ = [
    '../_base_/models/upernet_lvvit.py',
    '../_base_/datasets/voc12_aug.py',
    '../_base_/schedules/upernet_40k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(num_classes=21)
