"""Neck that turns four token maps at the patch's stride into four pyramid levels, the released or regular ones."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_ext.checkpoints.segmentation_weights import load_pyramid, pretrained_part
from tokenlabel.argument_checks import Count, checked
from tokenlabel.errors import UserError

RELEASED_STRIDES = (4, 8, 16, 16)
REGULAR_STRIDES = (4, 8, 16, 32)


@MODELS.register_module()
class TokenPyramid(BaseModule):
    """Resizes the maps of a plain vision transformer: strides 16, 16, 16, 16 become 4, 8, 16, and 16 or 32.

    Level 0 is upsampled by four and level 1 by two with a transposed convolution, followed by a 1x1 convolution. Level
    2 stays at the patch's stride. Level 3 changes its width. Every convolution is followed by normalisation and ReLU.
    With a patch of 8 pixels all strides are half as large.

    In the released pyramid level 3 stays at the patch's stride. The regular pyramid applies 2x2 max pooling to it
    first, as BEiT does, with `ceil_mode=True`. Pooling has no weights, so each pyramid can load the weights of the
    other, and the wide convolution runs on a quarter of the tokens.

    The levels are named `side_layer1` to `side_layer4`, as in the released segmentation files.

    Args:
        in_channels: Width of the tokens, the same for all four inputs.
        out_channels: Width of level 3; levels 0 to 2 keep `in_channels`.
        norm_cfg: Normalisation layer, as MMSegmentation configures it.
        init_cfg: None, or `dict(type='Pretrained', checkpoint=...)` with a segmentation model that has the pyramid.
        strides: Strides of the four levels for a patch of 16 pixels: (4, 8, 16, 16) as released, or (4, 8, 16, 32). A
            head with strides (`FPNHead.feature_strides`) needs the same ones.

    Raises:
        UserError: The strides are neither of these.
    """

    @checked
    def __init__(
        self,
        in_channels: Count,
        out_channels: Count = 2048,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
        strides: Sequence[Count] = RELEASED_STRIDES,
    ) -> None:
        super().__init__(init_cfg)
        self.strides = tuple(strides)
        if self.strides not in (RELEASED_STRIDES, REGULAR_STRIDES):
            raise UserError(f'TokenPyramid has no strides {self.strides}: set {RELEASED_STRIDES} or {REGULAR_STRIDES}')
        norm_cfg = norm_cfg or dict(type='SyncBN')
        self.side_layer1 = _enlarged(in_channels, 4, norm_cfg)
        self.side_layer2 = _enlarged(in_channels, 2, norm_cfg)
        self.side_layer3 = _mixed(in_channels, in_channels, norm_cfg)
        self.side_layer4 = _mixed(in_channels, out_channels, norm_cfg)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Four maps [B, in_channels, H, W] -> levels of sizes (4H, 4W), (2H, 2W), (H, W), and (H, W) or half of it.

        Raises:
            ValueError: There are not four maps.
        """
        layers = (self.side_layer1, self.side_layer2, self.side_layer3, self.side_layer4)
        if len(maps) != len(layers):
            raise ValueError(f'TokenPyramid takes 4 maps but the backbone gave {len(maps)}: set 4 out_indices')
        if self.strides == REGULAR_STRIDES:
            maps = (*maps[:3], F.max_pool2d(maps[3], 2, ceil_mode=True))
        return tuple(layer(x) for layer, x in zip(layers, maps, strict=True))

    def init_weights(self) -> None:
        """Initialises by `init_cfg`; its checkpoint may be our or a released segmentation model."""
        if part := pretrained_part(self.init_cfg):
            load_pyramid(self, part['checkpoint'], ema=part.get('ema', True))
        else:
            super().init_weights()


def _enlarged(width: int, factor: int, norm_cfg: dict) -> nn.Sequential:
    enlarge = nn.ConvTranspose2d(width, width, factor, stride=factor, bias=False)
    return nn.Sequential(enlarge, _norm(norm_cfg, width), nn.ReLU(inplace=True), *_mixed(width, width, norm_cfg))


def _mixed(in_channels: int, out_channels: int, norm_cfg: dict) -> nn.Sequential:
    mix = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(mix, _norm(norm_cfg, out_channels), nn.ReLU(inplace=True))


def _norm(norm_cfg: dict, width: int) -> nn.Module:
    return build_norm_layer(norm_cfg, width)[1]
