"""The digit scenes as a segmentation task for the demo: 64 x 64 images, batch 16, 300 iterations.

Not run by itself: `upernet.py` and `fpn.py` beside it add the head.
"""

_base_ = ['../_base_/schedules/short.py', '../_base_/segmentation_runtime.py']

# The network of pretrain.py.
backbone = dict(
    type='LVViT',
    arch='lvvit_t',
    img_size=64,
    patch_size=8,
    embed_dim=96,
    depth=4,
    num_heads=4,
    stem_width=24,
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/pretrain/iter_800.pth'),
)

train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='EndlessSampler'),
    dataset=dict(
        type='DigitScenes',
        data_root='work_dirs/demo/scenes/ade',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadLabelMap'),
            dict(type='RandomResize', scale=(64, 64), ratio_range=(1.0, 1.5), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(64, 64)),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='DigitScenes',
        data_root='work_dirs/demo/scenes/ade',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadLabelMap'),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='StreamingIoU', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

train_cfg = dict(max_iters=300, val_interval=10**9)
default_hooks = dict(checkpoint=dict(interval=-1, save_best=None))
