"""CamVid, street scenes in 11 classes, for the small LV-ViT that was pretrained on Imagenette: 320 x 240 pixels.

Not run by itself: `fpn.py`, `upernet.py` and `linear.py` beside it add the head.
"""

_base_ = ['../_base_/datasets/folders.py', '../_base_/schedules/short.py', '../_base_/segmentation_runtime.py']

data = dict(
    data_root='data/camvid',
    classes=[
        'sky',
        'building',
        'pole',
        'road',
        'pavement',
        'tree',
        'sign',
        'fence',
        'car',
        'pedestrian',
        'bicyclist',
    ],
    ignore=[11],  # not labelled
)
crop_size = (240, 320)
scale = (320, 240)

# The network of configs/imagenette/pretrain.py.
backbone = dict(
    type='LVViT',
    arch='lvvit_t',
    img_size=crop_size,
    embed_dim=192,
    depth=6,
    num_heads=6,
    stem_width=24,
    out_indices=(2, 3, 4, 5),
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/imagenette/pretrain/iter_1500.pth'),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadLabelMap'),
    dict(type='RandomResize', scale=scale, ratio_range=(1.0, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadLabelMap'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        **data,
        data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(
        **data,
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(max_iters=400, val_interval=400)
