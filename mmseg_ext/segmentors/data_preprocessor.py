"""MMSegmentation's data preprocessor for images of any number of channels."""

from collections.abc import Sequence

import mmseg.models
import torch
from mmseg.registry import MODELS

GREY_OR_RGB = (1, 3)  # numbers of channels that MMEngine takes


@MODELS.register_module(force=True)
class SegDataPreProcessor(mmseg.models.SegDataPreProcessor):
    """MMSegmentation's `SegDataPreProcessor`, whose mean and std may have any number of entries.

    Args:
        mean: Of each channel, in the numbers that images hold.
        std: Of each channel.
        **kwargs: As MMSegmentation's: `size`, `pad_val`, `test_cfg`...
    """

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **kwargs) -> None:
        if mean is None or len(mean) in GREY_OR_RGB:
            super().__init__(mean, std, **kwargs)
            return
        super().__init__(**kwargs)
        self._enable_normalize = True
        for name, numbers in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1), persistent=False)
