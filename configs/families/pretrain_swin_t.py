"""Swin-T (29.1 M) on ImageNet-1k with token labels, 224 x 224, from scratch.

    tools/pretrain.sh configs/families/pretrain_swin_t.py 8

Data as for pretrain_lvvit_s.py. 7 x 7 tokens; MixToken exchanges its boxes in the 56 x 56 patches.
No score is published for this recipe.
"""

_base_ = ['../_base_/pretrain_imagenet_any_family.py']

model = dict(network=dict(model_name='swin_tiny_patch4_window7_224', drop_path_rate=0.2))
