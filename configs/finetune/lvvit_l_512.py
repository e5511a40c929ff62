"""LV-ViT-L at 512 x 512 on ImageNet-1k, fine-tuned from the 224 x 224 model: 30 epochs with token labels.

    tools/pretrain.sh configs/finetune/lvvit_l_512.py 8
    tools/pretrain.sh configs/finetune/lvvit_l_512.py 8 --cfg-options initial_weights=FILE_OR_WORK_DIR

Starts from the last checkpoint of `configs/pretrain_lvvit_l.py`. Images and labels as for it: the same maps are read at
32 x 32 tokens. Published: 86.4 % top-1.
"""

_base_ = ['../_base_/finetune_imagenet.py']

size = 512

initial_weights = 'work_dirs/pretrain_lvvit_l'
model = dict(network=dict(model_name='lvvit_l', img_size=size, drop_path_rate=0.3))
train_dataloader = dict(dataset=dict(transform=dict(size=size, auto_augment='rand-n3-m9-mstd0.5-inc1')))
val_dataloader = dict(dataset=dict(transform=dict(size=size, crop_pct=1.0)))
test_dataloader = val_dataloader
