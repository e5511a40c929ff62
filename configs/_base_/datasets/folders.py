"""Your own images and masks in folders, which the config that inherits names: 512x512 crops, 8 images on one GPU."""

_base_ = ['crops_512.py']

train_dataloader = dict(batch_size=8, dataset=dict(type='ImageMaskFolders'))
val_dataloader = dict(dataset=dict(type='ImageMaskFolders'))
test_dataloader = val_dataloader
