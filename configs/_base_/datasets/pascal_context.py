"""Pascal Context in `data/VOCdevkit/VOC2010`: 59 classes, 480x480 crops, 2 images per GPU: 16 on 8 GPUs.

MMSegmentation's `tools/dataset_converters/pascal_context.py` writes `SegmentationClassContext` and its lists. The
stored 0, background, is not counted: these are the 59 classes of most publications.
"""

crop_size = (480, 480)
test_scale = (520, 520)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadLabelMap', num_classes=59),
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
    dict(type='LoadLabelMap', num_classes=59),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(260, 260), keep_ratio=True),
                dict(type='Resize', scale=(390, 390), keep_ratio=True),
                dict(type='Resize', scale=(520, 520), keep_ratio=True),
                dict(type='Resize', scale=(650, 650), keep_ratio=True),
                dict(type='Resize', scale=(780, 780), keep_ratio=True),
                dict(type='Resize', scale=(910, 910), keep_ratio=True),
            ],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadLabelMap', num_classes=59)],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='PascalContextDataset59',
        data_root='data/VOCdevkit/VOC2010',
        ann_file='ImageSets/SegmentationContext/train.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='PascalContextDataset59',
        data_root='data/VOCdevkit/VOC2010',
        ann_file='ImageSets/SegmentationContext/val.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='StreamingIoU', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
