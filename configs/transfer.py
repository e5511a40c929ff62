"""Fine-tunes a pretrained LV-ViT-S on other images, 224 x 224, with image labels and without a label store.

    tools/pretrain.sh configs/transfer.py 1 --cfg-options model.network.num_classes=37
    tools/pretrain.sh configs/transfer.py 1 --cfg-options model.network.num_classes=37 \\
        initial_weights=lvvit_s-26M-224-83.3.pth.tar model.targets.on_tokens=True

Images in data/images/{train,val}, a folder per class. Starts from the last checkpoint of configs/pretrain_lvvit_s.py;
both heads are initialised anew for other classes. The class token learns the image's label; `on_tokens=True` copies it
to every token, which suits images filled by one object. 50 epochs of batch 256; the learning rate scales with the total
batch. Not a published recipe: tune learning rate and length from here.
"""

_base_ = ['_base_/pretrain_imagenet.py']

warmup = 2
base_lr = 1e-4

initial_weights = 'work_dirs/pretrain_lvvit_s'

model = dict(targets=dict(type='ImageLabels'))
train_dataloader = dict(batch_size=256, dataset=dict(root='data/images/train', label_store=None))
val_dataloader = dict(dataset=dict(root='data/images/val'))
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=50, cooldown_epochs=0)
auto_scale_lr = dict(base_batch_size=256)
optim_wrapper = dict(clip_grad=dict(max_norm=1.0), optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=warmup, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=warmup, convert_to_iter_based=True),
]
