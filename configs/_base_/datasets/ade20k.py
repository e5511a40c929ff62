"""ADE20K (SceneParse150) in `data/ade/ADEChallengeData2016`, 512x512 crops, 2 images per GPU: 16 on 8 GPUs."""

_base_ = ['crops_512.py']

train_dataloader = dict(
    dataset=dict(
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
    )
)
val_dataloader = dict(
    dataset=dict(
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    )
)
test_dataloader = val_dataloader
