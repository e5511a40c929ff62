"""What the families share: the demo's pretraining on scenes shrunk to 48 x 48, so that each has 6 x 6 locations.

Not run by itself: the files beside it add the network. One learning rate serves all. The transformers start with timm's
`weight_init='jax'`: with its usual weights of 0.02 their narrow layers hardly move within a thousand steps.
"""

_base_ = ['../pretrain.py']

size = 48
base_lr = 1.5e-3

train_dataloader = dict(dataset=dict(transform=dict(size=size)))
val_dataloader = dict(dataset=dict(transform=dict(size=size)))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=base_lr))
