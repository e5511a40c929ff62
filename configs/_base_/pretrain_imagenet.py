"""The published recipe on ImageNet-1k: 310 epochs, batch 1024 as 8 GPUs x 128, token labels from a store.

On another number of GPUs or another batch size the learning rate follows the batch linearly (`auto_scale_lr`), or
with `keep_global_batch=True` the batch is kept instead, by accumulating gradients.
"""

_base_ = ['pretrain_runtime.py']

base_lr = 1.6e-3

model = dict(
    type='TokenLabelClassifier',
    network=dict(model_name='lvvit_s', num_classes=1000, drop_path_rate=0.1, mix_token=True),
    targets=dict(type='TokenLabels', smoothing=0.1),
    loss=dict(dense_weight=1.0, cls_weight=1.0),
    data_preprocessor=dict(type='ImagePreprocessor', erasing=0.25),
    compile=True,  # on a GPU
    channels_last=True,
)

train_dataloader = dict(
    batch_size=128,
    num_workers=12,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='EndlessSampler'),
    dataset=dict(
        type='LabeledImages',
        root='data/imagenet/train',
        label_store='data/imagenet_labels',
        # draft: large photographs, which hold up whole batches, decode faster, for the same crops, never enlarged.
        transform=dict(
            type='TrainTransform',
            size=224,
            auto_augment='rand-m9-mstd0.5-inc1',
            draft=True,
        ),
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=12,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='LabeledImages',
        root='data/imagenet/val',
        split='validation',
        transform=dict(type='EvalTransform', size=224, crop_pct=0.9),
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(type='EpochsAsIterationsLoop', max_epochs=310, cooldown_epochs=10, val_interval=1)
auto_scale_lr = dict(enable=True, base_batch_size=1024)
keep_global_batch = False
optim_wrapper = dict(
    type='SkippingAmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(cls_token=dict(decay_mult=0.0), pos_embed=dict(decay_mult=0.0)),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / base_lr, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=5, convert_to_iter_based=True),
]
default_hooks = dict(
    ema=dict(type='SteppedEMAHook', momentum=8e-5, gamma=9, update_buffers=True),
)
