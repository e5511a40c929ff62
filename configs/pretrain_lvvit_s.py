"""LV-ViT-S (26 M) on ImageNet-1k with token labels, 224 x 224, from scratch.

    tools/pretrain.sh                                    # on every visible GPU
    tools/pretrain.sh configs/pretrain_lvvit_s.py 8

Images in data/imagenet/{train,val}, labels in data/imagenet_labels, made by
`tokenlabel annotate data/imagenet/train data/imagenet_labels --annotator dm_nfnet_f6`.
Published: 83.3 % top-1.
"""

_base_ = ['_base_/pretrain_imagenet.py']
