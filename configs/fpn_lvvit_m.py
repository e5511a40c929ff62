"""Semantic FPN with an LV-ViT-M backbone on ADE20K: 66 M parameters, 512x512 crops, 80k iterations of 16 images.

    tools/dist_train.sh configs/fpn_lvvit_m.py 8
    tools/dist_test.sh configs/fpn_lvvit_m.py work_dirs/fpn_lvvit_m/iter_80000.pth 8 --tta

No score was published for this head. Costs 119 GMACs per crop (S: 74). The backbone starts
from the released 448x448 classifier; `upernet_lvvit.py` says how to start from your own.
"""

_base_ = [
    '_base_/models/fpn_lvvit_m.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/fpn_80k.py',
    '_base_/segmentation_runtime.py',
]
