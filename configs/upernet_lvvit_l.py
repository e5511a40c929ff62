"""UperNet with an LV-ViT-L backbone on ADE20K: 209 M parameters, 512x512 crops, 160k iterations of 16 images.

    tools/dist_train.sh configs/upernet_lvvit_l.py 8
    tools/dist_test.sh configs/upernet_lvvit_l.py work_dirs/upernet_lvvit_l/iter_160000.pth 8 --tta

Expected: 50.9 mIoU, 51.8 multi-scale (published, with a dropout where this has stochastic depth and without a divisor
of the residual branches; the release is `released/upernet_lvvit_l.py`). Costs 472 GMACs per crop
forwards (S: 113). The backbone starts from the released 512x512 classifier; `upernet_lvvit.py` says how to start from
your own.
"""

_base_ = [
    '_base_/models/upernet_lvvit_l.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/upernet_160k.py',
    '_base_/segmentation_runtime.py',
]
