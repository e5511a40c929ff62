"""A small LV-ViT on Imagenette, ten classes of photographs, with token labels: 10 epochs of 96 x 96 pixels.

    tokenlabel annotate data/imagenette/train data/imagenette_labels --annotator tf_efficientnet_lite0 --k 50
    tools/pretrain.sh configs/imagenette/pretrain.py 1

The annotator knows the 1000 classes of ImageNet, the images have ten of them: its labels are restricted to these ten.
MixToken, RandAugment and random erasing are left to the longer schedule (`pretrain_40ep.py`).
"""

_base_ = ['../_base_/pretrain_imagenet.py']

base_lr = 1e-3

model = dict(
    network=dict(
        model_name='lvvit_t',
        img_size=96,
        embed_dim=192,
        depth=6,
        num_heads=6,
        stem_width=24,
        num_classes=10,
        drop_path_rate=0.0,
        mix_token=False,
    ),
    data_preprocessor=dict(erasing=0.0),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    dataset=dict(
        root='data/imagenette/train',
        label_store='data/imagenette_labels',
        class_map='by_name',
        transform=dict(size=96, scale=(0.3, 1.0), auto_augment=None),
    ),
)
val_dataloader = dict(
    num_workers=4,
    dataset=dict(root='data/imagenette/val', transform=dict(size=96, crop_pct=1.0)),
)
test_dataloader = val_dataloader

train_cfg = dict(_delete_=True, type='EpochsAsIterationsLoop', max_iters=1500, val_interval=500)
auto_scale_lr = dict(enable=False)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=150, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=150, by_epoch=False),
]
