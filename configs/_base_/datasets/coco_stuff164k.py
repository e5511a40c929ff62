"""COCO-Stuff 164k in `data/coco_stuff164k`: 171 classes, 512x512 crops, 2 images per GPU: 16 on 8 GPUs.

118,287 images to train on, 5000 to validate on; MMSegmentation's `tools/dataset_converters/coco_stuff164k.py` writes
the `*_labelTrainIds.png` that are read.
"""

_base_ = ['crops_512.py']

train_dataloader = dict(
    dataset=dict(
        type='COCOStuffDataset',
        data_root='data/coco_stuff164k',
        data_prefix=dict(img_path='images/train2017', seg_map_path='annotations/train2017'),
    )
)
val_dataloader = dict(
    dataset=dict(
        type='COCOStuffDataset',
        data_root='data/coco_stuff164k',
        data_prefix=dict(img_path='images/val2017', seg_map_path='annotations/val2017'),
    )
)
test_dataloader = val_dataloader
