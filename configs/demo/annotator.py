"""The demo's annotator: a small ResNet that learns the digit scenes from image labels alone, in about a minute.

Run by `tokenlabel demo`, or by hand once the scenes are there:

    tokenlabel train demo/annotator
"""

_base_ = ['../_base_/pretrain_runtime.py']

work_dir = 'work_dirs/demo/annotator'

model = dict(
    type='TokenLabelClassifier',
    network=dict(model_name='resnet10t', num_classes=10, channels=(32, 64, 96, 128), stem_width=16, output_stride=8),
    targets=dict(type='ImageLabels', smoothing=0.1),
    data_preprocessor=dict(type='ImagePreprocessor'),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='EndlessSampler'),
    dataset=dict(
        type='LabeledImages',
        root='work_dirs/demo/scenes/imagenet/train',
        transform=dict(type='TrainTransform', size=64, scale=(0.6, 1.0), hflip=0.0, auto_augment=None),
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=1,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='LabeledImages',
        root='work_dirs/demo/scenes/imagenet/val',
        transform=dict(type='EvalTransform', size=64, crop_pct=1.0),
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(type='EpochsAsIterationsLoop', max_iters=250, val_interval=10**9)
optim_wrapper = dict(type='SkippingOptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=50, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=50, by_epoch=False),
]
