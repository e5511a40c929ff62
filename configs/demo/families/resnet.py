"""A small ResNet, one of the families of `tokenlabel demo --families`.

Its last two stages do not stride, so that it has 6 x 6 locations.

    tools/pretrain.sh configs/demo/families/resnet.py 1
"""

_base_ = ['small_images.py']

work_dir = 'work_dirs/demo/families/resnet'

model = dict(
    network=dict(
        _delete_=True,
        num_classes=10,
        model_name='resnet18',
        channels=(24, 48, 72, 96),
        layers=(1, 1, 1, 1),
        output_stride=8,
    )
)
