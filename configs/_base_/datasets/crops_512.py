"""Pipelines and loaders that the datasets share: 512x512 crops, 2 images per GPU.

Multi-scale testing resizes to the usual test size times each ratio, which is how the published scores were measured.
"""

crop_size = (512, 512)
test_scale = (2048, 512)
tta_ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

load = [dict(type='LoadImageFromFile'), dict(type='LoadLabelMap')]
augment = [dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]
# After the resize: predictions are compared at the annotation's own size.
annotate = [dict(type='LoadLabelMap'), dict(type='PackSegInputs')]

train_pipeline = [
    *load,
    dict(type='RandomResize', scale=test_scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    *augment,
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=test_scale, keep_ratio=True),
    *annotate,
]
tta_scales = [(round(test_scale[0] * ratio), round(test_scale[1] * ratio)) for ratio in tta_ratios]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=scale, keep_ratio=True) for scale in tta_scales],
            [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)],
            [dict(type='LoadLabelMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='EndlessSampler'),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='StreamingIoU', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
