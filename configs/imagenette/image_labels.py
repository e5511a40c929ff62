"""`pretrain.py` with image labels on the class token alone: the baseline, no label store needed.

tools/pretrain.sh configs/imagenette/image_labels.py 1
"""

_base_ = ['pretrain.py']

model = dict(targets=dict(type='ImageLabels'))
train_dataloader = dict(dataset=dict(label_store=None, class_map=None))
