"""A small MLP-Mixer, one of the families of `tokenlabel demo --families`.

tools/pretrain.sh configs/demo/families/mixer.py 1
"""

_base_ = ['small_images.py']

work_dir = 'work_dirs/demo/families/mixer'

model = dict(
    network=dict(
        _delete_=True,
        num_classes=10,
        model_name='mlp_mixer',
        img_size=48,
        patch_size=8,
        embed_dim=96,
        num_blocks=5,
    )
)
