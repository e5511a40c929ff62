"""The schedule of `fpn_80k.py`, 40k iterations long."""

_base_ = ['fpn_80k.py']

max_iters = 40000

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)]
train_cfg = dict(max_iters=max_iters)
