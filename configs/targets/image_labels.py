"""LV-ViT-S on ImageNet-1k with image labels on the class token alone: the baseline, no label store needed.

    tools/pretrain.sh configs/targets/image_labels.py 8
    tools/pretrain.sh configs/targets/image_labels.py 8 --cfg-options model.targets.on_tokens=True

The second copies the image's label to every token.
"""

_base_ = ['../pretrain_lvvit_s.py']

model = dict(targets=dict(type='ImageLabels'))
train_dataloader = dict(dataset=dict(label_store=None))
