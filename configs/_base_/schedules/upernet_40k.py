"""The schedule of `upernet_160k.py`, 40k iterations long."""

_base_ = ['upernet_160k.py']

max_iters = 40000
warmup_iters = 1500

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=warmup_iters, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=warmup_iters, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
