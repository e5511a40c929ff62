"""A small plain vision transformer (DeiT), one of the families of `tokenlabel demo --families`.

tools/pretrain.sh configs/demo/families/deit.py 1
"""

_base_ = ['small_images.py']

work_dir = 'work_dirs/demo/families/deit'

model = dict(
    network=dict(
        _delete_=True,
        num_classes=10,
        model_name='deit_tiny_patch16_224',
        img_size=48,
        patch_size=8,
        embed_dim=96,
        depth=4,
        num_heads=4,
        weight_init='jax',
    )
)
