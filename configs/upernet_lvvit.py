"""UperNet with an LV-ViT-S backbone on ADE20K: 44 M parameters, 512x512 crops, 160k iterations of 16 images.

    tools/dist_train.sh configs/upernet_lvvit.py 8
    tools/dist_test.sh configs/upernet_lvvit.py work_dirs/upernet_lvvit/iter_160000.pth 8 --tta

Expected: 47.9 mIoU, 48.6 multi-scale (published). Costs 160k iterations with 2 images on each of 8 GPUs, 127 passes
over the training set, and 113 GMACs per crop; `model.backbone.with_cp=True` trades time for
memory.

The backbone starts from the released 384x384 classifier, downloaded once; from your own pretraining with

    --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/pretrain_lvvit_s/CHECKPOINT.pth
"""

_base_ = [
    '_base_/models/upernet_lvvit.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/upernet_160k.py',
    '_base_/segmentation_runtime.py',
]
