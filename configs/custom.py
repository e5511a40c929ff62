"""UperNet with an LV-ViT-S backbone on your own images: copy this file and change the three lines below.

    cp configs/custom.py configs/mine.py
    tools/dist_train.sh configs/mine.py 1
    tools/dist_test.sh configs/mine.py work_dirs/mine/iter_40000.pth 1

Both folders have a `train` and a `val`; every image has a mask of its name but for the suffix. A pixel of a mask is the
number of its class, from 0 on, and 255 is not learned. Masks of other numbers, or in colours, need no new files:
`classes` says what they stand for. Where all images are in one folder, lists of names choose: `ann_file='train.txt'` in
a `dataset` and no `/train` in its `data_prefix`. `model.in_channels` reads images of other channels or 16 bits.
docs/your_images.md has examples.

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

labels = dict(classes=classes, ignore=[], others='error')

model = dict(num_classes=None)  # as many as `classes` names
train_dataloader = dict(
    dataset=dict(**labels, data_prefix=dict(img_path=f'{images}/train', seg_map_path=f'{masks}/train'))
)
val_dataloader = dict(dataset=dict(**labels, data_prefix=dict(img_path=f'{images}/val', seg_map_path=f'{masks}/val')))
test_dataloader = val_dataloader
