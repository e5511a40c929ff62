"""DeiT-S (22.4 M) on ImageNet-1k with token labels, 224 x 224, from scratch.

    tools/pretrain.sh configs/families/pretrain_deit_s.py 8

Data as for pretrain_lvvit_s.py. 14 x 14 tokens. No score is published for this recipe.
"""

_base_ = ['../_base_/pretrain_imagenet_any_family.py']

model = dict(network=dict(model_name='deit_small_patch16_224', drop_path_rate=0.1))
