"""UperNet with an LV-ViT-S backbone on COCO-Stuff 164k: 512x512 crops, 160k iterations of 16 images.

    tools/dist_train.sh configs/coco_stuff/upernet_lvvit.py 8
    tools/dist_test.sh configs/coco_stuff/upernet_lvvit.py \\
        work_dirs/coco_stuff/upernet_lvvit/iter_160000.pth 8 --tta

No score was published. 22 passes over the 118,287 training images, 113 GMACs per crop.
`_base_/datasets/coco_stuff164k.py` says where the images are. For another size, name
`_base_/models/upernet_lvvit_{t,m,l}.py` as the first base.
"""

_base_ = [
    '../_base_/models/upernet_lvvit.py',
    '../_base_/datasets/coco_stuff164k.py',
    '../_base_/schedules/upernet_160k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(num_classes=171)
