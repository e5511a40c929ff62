"""An annotator for your own classes: a pretrained classifier of timm, fine-tuned on image labels.

    tokenlabel train annotator --cfg-options model.network.num_classes=37
    tokenlabel annotate data/images/train data/labels --annotator convnext_tiny.fb_in22k_ft_in1k \
        --checkpoint work_dirs/annotator/best_top1_iter_ITERATION.pth
    tools/pretrain.sh configs/pretrain_lvvit_s.py 1 --cfg-options model.network.num_classes=37 \
        train_dataloader.dataset.root=data/images/train train_dataloader.dataset.label_store=data/labels \
        val_dataloader.dataset.root=data/images/val

Images in data/images/{train,val}, a folder per class. 30 epochs of batch 64 on one GPU; on several, or with another
batch, the learning rate follows. Any classifier of timm will do, by `model.network.model_name`; docs/annotators.md
says how the maps of each family arise. Pixels are normalised as for ImageNet: a classifier of another mean and
std (timm's `default_cfg`) needs them in `model.data_preprocessor`, because `tokenlabel annotate` uses its own.
"""

_base_ = ['_base_/pretrain_runtime.py']

warmup = 2
base_lr = 1e-4

model = dict(
    type='TokenLabelClassifier',
    network=dict(model_name='convnext_tiny.fb_in22k_ft_in1k', pretrained=True, num_classes=1000, drop_path_rate=0.1),
    targets=dict(type='ImageLabels', smoothing=0.1),
    data_preprocessor=dict(type='ImagePreprocessor', erasing=0.25),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='EndlessSampler'),
    dataset=dict(
        type='LabeledImages',
        root='data/images/train',
        transform=dict(type='TrainTransform', size=224, scale=(0.3, 1.0), auto_augment='rand-m9-mstd0.5-inc1'),
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='LabeledImages',
        root='data/images/val',
        split='validation',
        transform=dict(type='EvalTransform', size=224, crop_pct=0.95),
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(type='EpochsAsIterationsLoop', max_epochs=30, val_interval=1)
auto_scale_lr = dict(enable=True, base_batch_size=64)
optim_wrapper = dict(
    type='SkippingAmpOptimWrapper',
    dtype='bfloat16',
    clip_grad=dict(max_norm=1.0),
    optimizer=dict(type='AdamW', lr=base_lr, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=warmup, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=warmup, convert_to_iter_based=True),
]
