"""Cityscapes in `data/cityscapes`: 19 classes, 768x768 crops, one image per GPU: 8 on 8 GPUs.

`leftImg8bit` and `gtFine` with a folder per city; MMSegmentation's `tools/dataset_converters/cityscapes.py` adds the
`*_gtFine_labelTrainIds.png` that are read.
"""

crop_size = (768, 768)
test_scale = (2048, 1024)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadLabelMap', num_classes=19),
    dict(type='RandomResize', scale=test_scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=test_scale, keep_ratio=True),
    # After the resize: predictions are compared at the annotation's own size.
    dict(type='LoadLabelMap', num_classes=19),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(1024, 512), keep_ratio=True),
                dict(type='Resize', scale=(1536, 768), keep_ratio=True),
                dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
                dict(type='Resize', scale=(2560, 1280), keep_ratio=True),
                dict(type='Resize', scale=(3072, 1536), keep_ratio=True),
                dict(type='Resize', scale=(3584, 1792), keep_ratio=True),
            ],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadLabelMap', num_classes=19)],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CityscapesDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='CityscapesDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='StreamingIoU', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
