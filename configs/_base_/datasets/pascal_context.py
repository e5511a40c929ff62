"""Pascal Context in `data/VOCdevkit/VOC2010`: 59 classes, 480x480 crops, 2 images per GPU: 16 on 8 GPUs.

MMSegmentation's `tools/dataset_converters/pascal_context.py` writes `SegmentationClassContext` and its lists. The
stored 0, background, is not counted: these are the 59 classes of most publications.
"""

_base_ = ['crops_512.py']

crop_size = (480, 480)
test_scale = (520, 520)

train_pipeline = [
    *_base_.load,
    dict(type='RandomResize', scale=test_scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.augment,
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=test_scale, keep_ratio=True),
    *_base_.annotate,
]
tta_scales = [(round(test_scale[0] * ratio), round(test_scale[1] * ratio)) for ratio in _base_.tta_ratios]
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
    dataset=dict(
        type='PascalContextDataset59',
        data_root='data/VOCdevkit/VOC2010',
        ann_file='ImageSets/SegmentationContext/train.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type='PascalContextDataset59',
        data_root='data/VOCdevkit/VOC2010',
        ann_file='ImageSets/SegmentationContext/val.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
