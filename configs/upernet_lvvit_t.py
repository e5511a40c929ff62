"""UperNet with an LV-ViT-T backbone on ADE20K: 24 M parameters, 512x512 crops, 160k iterations of 16 images.

    tools/dist_train.sh configs/upernet_lvvit_t.py 8
    tools/dist_test.sh configs/upernet_lvvit_t.py work_dirs/upernet_lvvit_t/iter_160000.pth 8 --tta

No score was published for T, nor blocks to read: every third of its twelve is taken. Costs 83 GMACs
per crop forwards (S: 113). The backbone starts from the released 224x224 classifier; `upernet_lvvit.py` says how to
start from your own.
"""

_base_ = [
    '_base_/models/upernet_lvvit_t.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/upernet_160k.py',
    '_base_/segmentation_runtime.py',
]
