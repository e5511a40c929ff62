"""The recipe for backbones other than LV-ViT, at the learning rate that DeiT, Swin and ConvNeXt are trained with.

That is 1e-3 for batch 1024. `model.network.model_name` is the architecture.
"""

_base_ = ['pretrain_imagenet.py']

base_lr = 1e-3

optim_wrapper = dict(
    optimizer=dict(lr=base_lr),
    paramwise_cfg=dict(
        custom_keys=dict(
            relative_position_bias_table=dict(decay_mult=0.0),
            gamma=dict(decay_mult=0.0),  # layer scale
        )
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / base_lr, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=5, convert_to_iter_based=True),
]
