"""Any timm model as a segmentation backbone: token maps of a plain transformer, or feature levels of a pyramid."""

import math
from collections.abc import Callable, Sequence

import timm
from mmengine.model import BaseModule, initialize
from mmseg.registry import MODELS
from timm.layers import LayerNorm2d, to_2tuple
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_ext.backbones.shape_probe import map_shapes, unused_parameters
from mmseg_ext.backbones.stages import checked_indices, evaluate_frozen, freeze_stages
from mmseg_ext.checkpoints.segmentation_weights import pretrained_part
from mmseg_ext.checkpoints.timm_backbone import architecture_of, fitted, load_timm_backbone, load_timm_release
from tokenlabel.argument_checks import Natural, Rate, Size, checked
from tokenlabel.errors import UserError

PYRAMID_STRIDES = (4, 8, 16, 32)
# Arguments by which timm's model families take their input size, the most flexible first.
SIZE_ARGUMENTS = (
    lambda size: dict(img_size=size, dynamic_img_size=True),  # plain transformers
    lambda size: dict(img_size=size, strict_img_size=False),  # Swin
    lambda size: dict(img_size=size),
    lambda size: dict(),  # convolutional networks
)


@MODELS.register_module()
class TimmTokens(BaseModule):
    """A timm model without its classifier. It can load the weights of a `TokenLabelModel`.

    A plain transformer (DeiT, EVA, BEiT, CaiT, MLP-Mixer...) returns four maps at the stride of its patch, for a
    `TokenPyramid`. A pyramid (Swin, ConvNeXt, ResNet, MaxViT, Hiera...) returns its levels of stride 4, 8, 16 and 32,
    which heads take without a neck.

    Inputs may have any size and aspect ratio if the architecture supports it. They are padded with zeros (the mean
    colour) on the right and bottom to multiples of `size_divisor`, and the maps are cropped to
    `ceil(H / stride) x ceil(W / stride)`. An architecture with a fixed input size (MLP-Mixer, CaiT, BEiT, Hiera) pads
    to `img_size` and refuses larger inputs; use sliding-window inference with windows of that size.

    Every trainable parameter contributes to the output: the head and the blocks after the last selected one are
    removed, and other parameters that the maps do not depend on are frozen.

    Args:
        model_name: Architecture, as in `timm.create_model`.
        img_size: Height and width in pixels for which position embeddings and windows are created.
        out_indices: Blocks (plain) or levels (pyramid, in timm's numbering) to return, ascending from 0. None selects
            four evenly spaced blocks including the last, or the levels of stride 4, 8, 16 and 32.
        out_norm: Apply LayerNorm over the channels of each map, as is usual for Swin and ConvNeXt. Pyramids with
            BatchNorm and `TokenPyramid` do not need it.
        drop_path_rate: Stochastic depth rate of the last block, in [0, 1); it grows linearly from 0 at the first.
        frozen_stages: -1 trains everything; n >= 0 freezes the stem, the embeddings and the first n blocks (plain) or
            stages (pyramid).
        with_cp: Recompute activations in the backward pass to save memory. Running statistics of BatchNorm in
            recomputed blocks are then updated twice per step.
        pretrained: True loads timm's weights; a path or URL is short for
            `init_cfg=dict(type='Pretrained', checkpoint=pretrained)`.
        init_cfg: Initialisation config of MMEngine. `Pretrained` loads a pretraining checkpoint of this project, a file
            with timm's parameter names, or a segmentation model with this backbone; with `ema=False` raw instead of EMA
            weights.
        **arguments: Other arguments of the architecture.

    Attributes:
        channels: Number of channels of each map.
        strides: Stride of each map in pixels.
        size_divisor: Inputs are padded to multiples of this height and width.

    Raises:
        UserError: The architecture does not exist or does not return maps, or does not support an argument.
    """

    @checked
    def __init__(
        self,
        model_name: str,
        img_size: Size = 512,
        out_indices: Sequence[Natural] | None = None,
        out_norm: bool = False,
        drop_path_rate: Rate = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        pretrained: bool | str = False,
        init_cfg: dict | list[dict] | None = None,
        **arguments,
    ) -> None:
        super().__init__()
        if pretrained and init_cfg:
            raise UserError('TimmTokens got both pretrained and init_cfg: keep one of them')
        self.init_cfg = dict(type='Pretrained', checkpoint=pretrained) if isinstance(pretrained, str) else init_cfg
        self.timm_weights = pretrained is True
        self.model_name, self.img_size, self.frozen_stages = model_name, to_2tuple(img_size), frozen_stages
        if drop_path_rate:
            arguments['drop_path_rate'] = drop_path_rate
        self.model, self.arguments = _create(model_name, self.img_size, arguments)

        reductions = [level['reduction'] for level in _levels(self.model, model_name)]
        cell = max(reductions)
        if any(side % cell for side in self.img_size):
            raise UserError(f'img_size {self.img_size} of {model_name} is not a multiple of {cell}: choose one that is')
        self.out_indices = checked_indices(_even(reductions) if out_indices is None else out_indices, len(reductions))
        self._indices = self.model.prune_intermediate_layers(list(self.out_indices), prune_norm=True, prune_head=True)
        self._in_chans = arguments.get('in_chans', 3)
        self._look_at_shapes()
        self.out_norms = nn.ModuleList(LayerNorm2d(width) for width in self.channels) if out_norm else None

        freeze_stages(self.model, frozen_stages)
        if with_cp:
            self._save_memory()
        self._register_load_state_dict_pre_hook(self._fit_before_loading)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, H, W] to a map [B, channels, ceil(H / stride), ceil(W / stride)] for each of `out_indices`.

        Raises:
            UserError: The architecture has a fixed input size and the images are larger.
        """
        size = tuple(images.shape[-2:])
        if self.fixed_size and any(side > own for side, own in zip(size, self.img_size, strict=True)):
            raise UserError(
                f'{self.model_name} takes images up to {self.img_size[0]}x{self.img_size[1]} and got '
                f"{size[0]}x{size[1]}: set img_size, or test_cfg=dict(mode='slide', crop_size={self.img_size}, ...)"
            )
        bottom, right = (-side % divisor for side, divisor in zip(size, self.size_divisor, strict=True))
        padded = F.pad(images, (0, right, 0, bottom)) if bottom or right else images
        maps = self.model.forward_intermediates(padded, indices=self._indices, intermediates_only=True)
        maps = [x[..., : -(-size[0] // s), : -(-size[1] // s)] for x, s in zip(maps, self.strides, strict=True)]
        if self.out_norms is not None:
            maps = [norm(x) for norm, x in zip(self.out_norms, maps, strict=True)]
        return tuple(maps)

    def init_weights(self) -> None:
        """Initialises the weights according to `pretrained` or `init_cfg`; without them they stay unchanged.

        Raises:
            UserError: The checkpoint is missing, cannot be read, or does not match the model.
        """
        if self.timm_weights:
            load_timm_release(self.model, self.model_name, self.arguments)
        elif part := pretrained_part(self.init_cfg):
            source, ema = part['checkpoint'], part.get('ema', True)
            load_timm_backbone(self.model, self.model_name, self.arguments, source, ema)
        elif self.init_cfg:
            initialize(self, self.init_cfg)

    def train(self, mode: bool = True) -> 'TimmTokens':
        """Sets training or evaluation mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        if self.frozen_stages >= 0:
            evaluate_frozen(self.model)
        return self

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """A function from a parameter's name to its layer, for layer decay; `out_norms` belong to the last layer.

        Raises:
            UserError: timm does not number the layers of this architecture.
        """
        if not hasattr(self.model, 'group_matcher'):
            raise UserError(f'timm does not number the layers of {self.model_name}: choose another constructor')
        groups = group_parameters(self.model, self.model.group_matcher(coarse=coarse), reverse=True)
        last = max(groups.values())
        return lambda name: groups.get(name.removeprefix('model.'), last)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the architecture excludes from weight decay."""
        return {f'model.{name}' for name in getattr(self.model, 'no_weight_decay', set)()}

    def _look_at_shapes(self) -> None:
        """Determines channels, strides and `size_divisor`. Removes unused modules and freezes unused parameters."""
        try:
            shapes = map_shapes(self.model, self._indices, self._in_chans, self.img_size)
        except Exception as error:  # models of timm fail in many ways
            raise UserError(
                f'{self.model_name} does not support images of {self.img_size[0]}x{self.img_size[1]} ({_line(error)}): '
                'set img_size to a size that it supports'
            ) from error
        self.channels = tuple(shape[0] for shape in shapes)
        height, width = self.img_size
        if any(height % rows or width % columns or height * columns != width * rows for _, rows, columns in shapes):
            raise UserError(
                f'the maps of {self.model_name} do not cover the border of images, because its convolutions have no '
                'padding: choose another model'
            )
        self.strides = tuple(height // rows for _, rows, _ in shapes)
        unused = unused_parameters(self.model, self._indices, self._in_chans, self.img_size)
        for name, child in list(self.model.named_children()):
            names = {f'{name}.{parameter}' for parameter, _ in child.named_parameters()}
            if names and names <= unused:
                setattr(self.model, name, nn.Identity())
        for name, parameter in self.model.named_parameters():
            if name in unused:
                parameter.requires_grad_(False)
        cells = to_2tuple(math.lcm(*self.strides))
        self.size_divisor = next((step for step in (cells, self.img_size) if self._takes_multiples(step)), None)
        self.fixed_size = self.size_divisor is None
        if self.fixed_size:
            self.size_divisor = self.img_size

    def _takes_multiples(self, step: tuple[int, int]) -> bool:
        """Whether the model accepts images whose height and width are any multiples of `step`."""
        sizes = [(2 * step[0], step[1]), (self.img_size[0] + step[0], self.img_size[1] + 2 * step[1])]
        try:
            maps = [map_shapes(self.model, self._indices, self._in_chans, size) for size in sizes]
        except Exception:  # models of timm refuse a size in many ways
            return False
        return all(
            shape[1:] == (size[0] // stride, size[1] // stride)
            for size, shapes in zip(sizes, maps, strict=True)
            for shape, stride in zip(shapes, self.strides, strict=True)
        )

    def _save_memory(self) -> None:
        try:
            self.model.set_grad_checkpointing(True)
        except (AssertionError, AttributeError) as error:
            raise UserError(f'{self.model_name} has no gradient checkpointing in timm: set with_cp=False') from error

    def _fit_before_loading(self, state_dict: dict, prefix: str, *_) -> None:
        """Resamples the size-dependent weights of a checkpoint that was trained with another crop size."""
        prefix = f'{prefix}model.'
        own = self.model.state_dict()
        state = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        if any(x.shape != own[name].shape for name, x in state.items()):
            for name, x in fitted(state, self.model, self.model_name, 'the checkpoint').items():
                state_dict[prefix + name] = x


def _create(model_name: str, size: tuple[int, int], arguments: dict) -> tuple[nn.Module, dict]:
    """Creates the model; returns it with all arguments of `timm.create_model`."""
    if not timm.is_model(architecture_of(model_name)):
        raise UserError(f'timm has no model {model_name!r}: see timm.list_models()')
    refusal = None
    for size_arguments in SIZE_ARGUMENTS:
        tried = dict(num_classes=0) | size_arguments(size) | arguments
        try:
            return timm.create_model(model_name, **tried), tried
        except TypeError as error:  # an argument that this family does not have
            refusal = error
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f'{model_name} cannot be created for images of {size[0]}x{size[1]} ({_line(error)}): change img_size'
            ) from error
    raise UserError(f'{model_name} does not take the arguments of TimmTokens: {_line(refusal)}') from refusal


def _levels(model: nn.Module, model_name: str) -> list[dict]:
    levels = getattr(model, 'feature_info', None)
    if not levels or not hasattr(model, 'forward_intermediates') or not hasattr(model, 'prune_intermediate_layers'):
        raise UserError(f'{model_name} does not support forward_intermediates in timm: choose another model')
    return list(levels)


def _even(reductions: Sequence[int]) -> tuple[int, ...]:
    """Four evenly spaced blocks if all have the same stride, else the last level of each stride of a pyramid."""
    if len(set(reductions)) == 1:
        quarters = min(4, len(reductions))
        return tuple(len(reductions) * (i + 1) // quarters - 1 for i in range(quarters))
    last = {stride: i for i, stride in enumerate(reductions)}
    return tuple(last[stride] for stride in PYRAMID_STRIDES if stride in last)


def _line(error: Exception) -> str:
    return str(error).partition('\n')[0]
