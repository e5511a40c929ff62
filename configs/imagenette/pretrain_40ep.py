"""`pretrain.py` for 40 epochs with the published augmentation: crops from 0.08, RandAugment, erasing and MixToken.

tools/pretrain.sh configs/imagenette/pretrain_40ep.py 1
"""

_base_ = ['pretrain.py']

model = dict(network=dict(mix_token=True), data_preprocessor=dict(erasing=0.25))
train_dataloader = dict(dataset=dict(transform=dict(scale=(0.08, 1.0), auto_augment='rand-m9-mstd0.5-inc1')))
train_cfg = dict(max_iters=6000)
