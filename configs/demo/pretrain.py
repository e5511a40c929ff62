"""The demo's LV-ViT, four blocks of width 96 on 8 x 8 tokens, pretrained on the digit scenes with token labels.

MixToken is left to longer trainings. The weights start as timm's `jax` initialisation has
them, with which the loss leaves its first plateau sooner.

Run by `tokenlabel demo`, or by hand once scenes and labels are there:

    tools/pretrain.sh configs/demo/pretrain.py 1
"""

_base_ = ['../_base_/pretrain_imagenet.py']

work_dir = 'work_dirs/demo/pretrain'

base_lr = 1e-3

model = dict(
    network=dict(
        model_name='lvvit_t',
        img_size=64,
        patch_size=8,
        embed_dim=96,
        depth=4,
        num_heads=4,
        stem_width=24,
        num_classes=10,
        drop_path_rate=0.0,
        mix_token=False,
        weight_init='jax',
    ),
    data_preprocessor=dict(erasing=0.0),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        root='work_dirs/demo/scenes/imagenet/train',
        label_store='work_dirs/demo/labels',
        transform=dict(size=64, scale=(0.5, 1.0), hflip=0.0, auto_augment=None),
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=1,
    pin_memory=False,
    dataset=dict(root='work_dirs/demo/scenes/imagenet/val', transform=dict(size=64, crop_pct=1.0)),
)
test_dataloader = val_dataloader

train_cfg = dict(_delete_=True, type='EpochsAsIterationsLoop', max_iters=800, val_interval=10**9)
auto_scale_lr = dict(enable=False)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=100, by_epoch=False),
]
