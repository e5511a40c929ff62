"""Registry names of our datasets, transforms and sampler."""

from mmengine.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS

from tokenlabel.data.images import LabeledImages
from tokenlabel.data.sampler import EndlessSampler
from tokenlabel.transforms.image import EvalTransform, TrainTransform

TRANSFORMS.register_module(module=TrainTransform)
TRANSFORMS.register_module(module=EvalTransform)
DATA_SAMPLERS.register_module(module=EndlessSampler)


@DATASETS.register_module(name='LabeledImages')
def build_labeled_images(transform: dict, **arguments) -> LabeledImages:
    """`LabeledImages` with its transform built from a config dict."""
    return LabeledImages(transform=TRANSFORMS.build(transform), **arguments)


build_labeled_images.forwards_to = LabeledImages
