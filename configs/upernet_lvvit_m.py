"""UperNet with an LV-ViT-M backbone on ADE20K: 77 M parameters, 512x512 crops, 160k iterations of 16 images.

    tools/dist_train.sh configs/upernet_lvvit_m.py 8
    tools/dist_test.sh configs/upernet_lvvit_m.py work_dirs/upernet_lvvit_m/iter_160000.pth 8 --tta

Expected: 49.4 mIoU, 50.6 multi-scale (published, with a dropout where this has stochastic depth). Costs 158 GMACs
per crop (S: 113). The backbone starts from the released 448x448 classifier; `upernet_lvvit.py`
says how to start from your own.
"""

_base_ = [
    '_base_/models/upernet_lvvit_m.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/upernet_160k.py',
    '_base_/segmentation_runtime.py',
]
