"""The schedule of `upernet_160k.py`, 40k iterations long."""

_base_ = ['upernet_160k.py']

train_cfg = dict(max_iters=40000)
