"""Cityscapes in `data/cityscapes`: 19 classes, 768x768 crops, one image per GPU: 8 on 8 GPUs.

`leftImg8bit` and `gtFine` with a folder per city; MMSegmentation's `tools/dataset_converters/cityscapes.py` adds the
`*_gtFine_labelTrainIds.png` that are read.
"""

_base_ = ['crops_512.py']

crop_size = (768, 768)
test_scale = (2048, 1024)

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
    batch_size=1,
    dataset=dict(
        type='CityscapesDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='CityscapesDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
