"""The schedule of `upernet_160k.py`, 80k iterations long."""

_base_ = ['upernet_160k.py']

train_cfg = dict(max_iters=80000)
