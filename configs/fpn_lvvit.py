"""Semantic FPN with an LV-ViT-S backbone on ADE20K: 512x512 crops, 80k iterations of 16 images, the PVT schedule.

    tools/dist_train.sh configs/fpn_lvvit.py 8
    tools/dist_test.sh configs/fpn_lvvit.py work_dirs/fpn_lvvit/iter_80000.pth 8 --tta

No score was published for this head. Costs half the iterations of `upernet_lvvit.py`, in float32
(`optim_wrapper.type=SkippingAmpOptimWrapper` for mixed precision).

The backbone starts from the released 384x384 classifier, downloaded once; from your own pretraining with

    --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/pretrain_lvvit_s/CHECKPOINT.pth
"""

_base_ = [
    '_base_/models/fpn_lvvit.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/fpn_80k.py',
    '_base_/segmentation_runtime.py',
]
