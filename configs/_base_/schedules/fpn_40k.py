"""The schedule of `fpn_80k.py`, 40k iterations long."""

_base_ = ['fpn_80k.py']

train_cfg = dict(max_iters=40000)
