"""UperNet with an LV-ViT-S backbone on your own images: copy this file and change the three lines below.

    cp configs/custom.py configs/mine.py
    tools/dist_train.sh configs/mine.py 1
    tools/dist_test.sh configs/mine.py work_dirs/mine/iter_40000.pth 1

Both folders have a `train` and a `val`; every image has a mask of its name but for the suffix, in which a pixel is the
id of its class: 0 for the first, 255 for what is not to be learned; 8 or 16 bits, or an index of a palette. Where all
images are in one folder, lists of names choose: `ann_file='data/mine/train.txt'` in a `dataset` and no `/train` in its
`data_prefix`. The names of the classes may be a text file, one a line; `num_classes` is then a number.

40k iterations of 8 images in 512x512 crops on one GPU, 113 GMACs per crop.
"""

_base_ = [
    '_base_/models/upernet_lvvit.py',
    '_base_/datasets/folders.py',
    '_base_/schedules/upernet_40k.py',
    '_base_/segmentation_runtime.py',
]

images = 'data/mine/images'
masks = 'data/mine/masks'
classes = ['background', 'leaf', 'fruit']

model = dict(num_classes=len(classes))
train_dataloader = dict(
    dataset=dict(classes=classes, data_prefix=dict(img_path=f'{images}/train', seg_map_path=f'{masks}/train'))
)
val_dataloader = dict(
    dataset=dict(classes=classes, data_prefix=dict(img_path=f'{images}/val', seg_map_path=f'{masks}/val'))
)
test_dataloader = val_dataloader
