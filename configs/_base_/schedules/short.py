"""A few hundred steps of a small segmentation model: AdamW at 1e-3, 40 steps of warm-up, linear decay."""

train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='SkippingOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0), 'cls_token': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=40, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=40, by_epoch=False),
]
