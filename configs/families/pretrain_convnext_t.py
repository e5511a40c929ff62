"""ConvNeXt-T (29.4 M) on ImageNet-1k with token labels, 224 x 224, from scratch.

    tools/pretrain.sh configs/families/pretrain_convnext_t.py 8

Data as for pretrain_lvvit_s.py. 7 x 7 locations; MixToken exchanges its boxes in pixels.
No score is published for this recipe.
"""

_base_ = ['../_base_/pretrain_imagenet_any_family.py']

model = dict(network=dict(model_name='convnext_tiny', drop_path_rate=0.1))
