"""LV-ViT-M (56 M) on ImageNet-1k with token labels, 224 x 224, from scratch.

    tools/pretrain.sh configs/pretrain_lvvit_m.py 8

Data as for pretrain_lvvit_s.py. Published: 84.0 % top-1.
"""

_base_ = ['_base_/pretrain_imagenet.py']

model = dict(network=dict(model_name='lvvit_m', drop_path_rate=0.2))
val_dataloader = dict(dataset=dict(transform=dict(crop_pct=1.0)))
test_dataloader = val_dataloader
