"""LV-ViT-T (8.5 M) on ImageNet-1k with token labels, 224 x 224, from scratch.

    tools/pretrain.sh configs/pretrain_lvvit_t.py 8

Data as for pretrain_lvvit_s.py. Published: 79.1 % top-1.
"""

_base_ = ['_base_/pretrain_imagenet.py']

model = dict(network=dict(model_name='lvvit_t'))
