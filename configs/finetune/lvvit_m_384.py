"""LV-ViT-M at 384 x 384 on ImageNet-1k, fine-tuned from the 224 x 224 model: 30 epochs with token labels.

    tools/pretrain.sh configs/finetune/lvvit_m_384.py 8
    tools/pretrain.sh configs/finetune/lvvit_m_384.py 8 --cfg-options initial_weights=FILE_OR_WORK_DIR

Starts from the last checkpoint of `configs/pretrain_lvvit_m.py`. Images and labels as for it: the same maps are read at
24 x 24 tokens. Published: 85.4 % top-1.
"""

_base_ = ['../_base_/finetune_imagenet.py']

size = 384

initial_weights = 'work_dirs/pretrain_lvvit_m'
model = dict(network=dict(model_name='lvvit_m', img_size=size, drop_path_rate=0.2))
train_dataloader = dict(dataset=dict(transform=dict(size=size)))
val_dataloader = dict(dataset=dict(transform=dict(size=size, crop_pct=1.0)))
test_dataloader = val_dataloader
