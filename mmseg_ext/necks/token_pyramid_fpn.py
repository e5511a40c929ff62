"""The token pyramid followed by a feature pyramid network, as one neck."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from tokenlabel.argument_checks import checked


@MODELS.register_module()
class TokenPyramidFPN(BaseModule):
    """`TokenPyramid`, then `FPN`: the neck of Semantic FPN (Kirillov et al., 2019) over a plain vision transformer.

    Args:
        pyramid: Config of the token pyramid (its `type` may be left out).
        fpn: Config of MMSegmentation's `FPN` (its `type` may be left out).
        init_cfg: Initialisation of the whole neck; the parts have their own.
    """

    @checked
    def __init__(self, pyramid: dict, fpn: dict, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.pyramid = MODELS.build({'type': 'TokenPyramid', **pyramid})
        self.fpn = MODELS.build({'type': 'FPN', **fpn})

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Four maps [B, C, H, W] of tokens -> the levels of the feature pyramid network."""
        return self.fpn(self.pyramid(maps))
