"""The fields of a training sample and of a batch, from the dataset to the loss."""

from typing import NotRequired, TypedDict

from torch import Tensor

from tokenlabel.transforms.mix_images import ImageMix


class Sample(TypedDict):
    """An image and its training targets.

    Attributes:
        image: uint8 [3, H, W].
        label: class of the image, -1 for none.
        index: number of the sample in its dataset.
        view: float64 [2, 3], from the model input to the source image.
        scores: float16 [k, S, S], scores (logits) of the k best classes of each cell of the score map, best first.
        classes: int32 [k, S, S], class ids of these scores.
        map_view: float64 [2, 3], from the score map to the source image.

    The last four are present only with a label store.
    """

    image: Tensor
    label: int
    index: int
    view: NotRequired[Tensor]
    scores: NotRequired[Tensor]
    classes: NotRequired[Tensor]
    map_view: NotRequired[Tensor]


class Batch(TypedDict):
    """Samples stacked along a first axis B; on the training device its images are normalised float32.

    Attributes:
        image: [B, 3, H, W].
        label: int64 [B].
        index: int64 [B], on the host.
        view: float64 [B, 2, 3], on the host.
        scores: float16 [B, k, S, S].
        classes: int32 [B, k, S, S].
        map_view: float64 [B, 2, 3], on the host.
        mix: how CutMix or Mixup mixed the images; absent without mixing.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    view: NotRequired[Tensor]
    scores: NotRequired[Tensor]
    classes: NotRequired[Tensor]
    map_view: NotRequired[Tensor]
    mix: NotRequired[ImageMix]
