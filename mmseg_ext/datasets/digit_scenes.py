"""The embedded digit scenes as a segmentation dataset."""

from typing import ClassVar

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from tokenlabel.data.digit_scenes import PALETTE, SEGMENTATION_CLASSES


@DATASETS.register_module()
class DigitScenes(BaseSegDataset):
    """Background and ten digits, from the `ade` folder that `tokenlabel.data.digit_scenes.write_digit_scenes` makes.

    As in ADE20K a stored 0 means unlabelled and the classes count from 1.
    """

    METAINFO: ClassVar[dict] = dict(classes=SEGMENTATION_CLASSES, palette=[list(colour) for colour in PALETTE])

    def __init__(self, img_suffix='.jpg', seg_map_suffix='.png', reduce_zero_label=True, **kwargs) -> None:
        super().__init__(
            img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, reduce_zero_label=reduce_zero_label, **kwargs
        )
