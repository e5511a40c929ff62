"""Pascal VOC 2012 with additional annotations (Aug) in `data/VOCdevkit/VOC2012`: 21 classes, 512x512 crops, 2 per GPU.

That is 16 on 8 GPUs. 10,582 images to train on: `train.txt` with `SegmentationClass`, `aug.txt` with
`SegmentationClassAug`; MMSegmentation's `tools/dataset_converters/voc_aug.py` writes the latter.
"""

_base_ = ['crops_512.py']

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='PascalVOCDataset',
                data_root='data/VOCdevkit/VOC2012',
                ann_file='ImageSets/Segmentation/train.txt',
                data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
                pipeline=_base_.train_pipeline,
            ),
            dict(
                type='PascalVOCDataset',
                data_root='data/VOCdevkit/VOC2012',
                ann_file='ImageSets/Segmentation/aug.txt',
                data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
                pipeline=_base_.train_pipeline,
            ),
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        type='PascalVOCDataset',
        data_root='data/VOCdevkit/VOC2012',
        ann_file='ImageSets/Segmentation/val.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    )
)
test_dataloader = val_dataloader
