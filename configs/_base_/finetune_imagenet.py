"""The published recipe of fine-tuning at a higher resolution: 30 epochs, batch 512 as 8 GPUs x 64, a constant rate.

The rest is as in pretraining: augmentation, MixToken, erasing and the label store. The paper says 30 epochs; the
release's command leaves its trainer's 300 epochs and 5 of warm-up from 1e-6.
"""

_base_ = ['pretrain_imagenet.py']

train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=64)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=30, cooldown_epochs=0)
auto_scale_lr = dict(base_batch_size=512)
optim_wrapper = dict(optimizer=dict(lr=5e-6, weight_decay=1e-8))
param_scheduler = []
