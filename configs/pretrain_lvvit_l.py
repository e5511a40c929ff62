"""LV-ViT-L (150 M) on ImageNet-1k with token labels, 224 x 224, from scratch.

    tools/pretrain.sh configs/pretrain_lvvit_l.py 8

Data as for pretrain_lvvit_s.py. Published after fine-tuning at 448: 86.2 % top-1.
"""

_base_ = ['_base_/pretrain_imagenet.py']

base_lr = 1e-3

model = dict(network=dict(model_name='lvvit_l', img_size=224, drop_path_rate=0.3))
train_dataloader = dict(dataset=dict(transform=dict(auto_augment='rand-n3-m9-mstd0.5-inc1')))
val_dataloader = dict(dataset=dict(transform=dict(crop_pct=1.0)))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / base_lr, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=5, convert_to_iter_based=True),
]
