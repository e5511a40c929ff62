"""A small Swin transformer of two stages, one of the families of `tokenlabel demo --families`.

tools/pretrain.sh configs/demo/families/swin.py 1
"""

_base_ = ['small_images.py']

work_dir = 'work_dirs/demo/families/swin'

model = dict(
    network=dict(
        _delete_=True,
        num_classes=10,
        model_name='swin_tiny_patch4_window7_224',
        img_size=48,
        window_size=6,
        embed_dim=48,
        depths=(2, 2),
        num_heads=(2, 4),
        weight_init='jax',
        drop_path_rate=0.0,
    )
)
