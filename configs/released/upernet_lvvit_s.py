"""UperNet with LV-ViT-S as its authors released it: network, windows and dropout of the published score.

    wget https://github.com/zihangJiang/TokenLabeling/releases/download/v1.1-seg/upernet_lvvit_s.pth
    tokenlabel test released/upernet_lvvit_s upernet_lvvit_s.pth
    tokenlabel test released/upernet_lvvit_s upernet_lvvit_s.pth --tta

Expected on ADE20K: 47.9 mIoU, 48.6 multi-scale, 83.1 % of the pixels (published). Evaluation costs 2000 images; one
of 4:3 is 2 windows of 512x512, 46 with `--tta`.

Trained, it is the published recipe: dropout in the MLPs, growing to 0.1 at the last block, and no stochastic depth, for
160k iterations of 16 images (`tools/dist_train.sh configs/released/upernet_lvvit_s.py 8`). To resume from the release
on your own data, inherit from it and set `load_from='upernet_lvvit_s.pth'` and `model.backbone.init_cfg=None`.
"""

_base_ = [
    '../_base_/models/upernet_lvvit.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/upernet_160k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    # Windows lie where the release had them, and none of 512x512 sees padding. Narrower ones, a few of those of `--tta`
    # at half size, stretch by less than a patch where 16 does not divide them; the release's did as well.
    data_preprocessor=dict(test_cfg=None),
    backbone=dict(drop_path_rate=0.0, mlp_drop_rate=0.1),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
