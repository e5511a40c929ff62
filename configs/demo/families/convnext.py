"""A small ConvNeXt, one of the families of `tokenlabel demo --families`.

Its last two stages do not stride, so that it has 6 x 6 locations. Layer scale, which would keep the blocks of a short
run idle, is off.

    tools/pretrain.sh configs/demo/families/convnext.py 1
"""

_base_ = ['small_images.py']

work_dir = 'work_dirs/demo/families/convnext'

model = dict(
    network=dict(
        _delete_=True,
        num_classes=10,
        model_name='convnext_tiny',
        depths=(1, 1, 1, 1),
        dims=(32, 64, 96, 128),
        output_stride=8,
        ls_init_value=None,
    )
)
