"""Any backbone of timm for segmentation: maps of a plain transformer's tokens, or the levels of a pyramid."""

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
# How timm's families take the size of their input, the most flexible first.
SIZE_ARGUMENTS = (
    lambda size: dict(img_size=size, dynamic_img_size=True),  # plain transformers
    lambda size: dict(img_size=size, strict_img_size=False),  # Swin
    lambda size: dict(img_size=size),
    lambda size: dict(),  # convolutional networks
)


@MODELS.register_module()
class TimmTokens(BaseModule):
    """A model of timm without its classifier, as pretraining with token labels leaves it (`TokenLabelModel`).

    A plain transformer (DeiT, EVA, BEiT, CaiT, MLP-Mixer...) gives four maps at its patch's stride, for a
    `TokenPyramid`. A pyramid (Swin, ConvNeXt, ResNet, MaxViT, Hiera...) gives its levels of stride 4, 8, 16 and 32; the
    heads take these without a neck.

    Inputs may have any size and aspect where the architecture can: they are padded with zeros (the mean colour) at
    right and bottom to multiples of `size_divisor`, and the maps are cut to `ceil(H / stride) x ceil(W / stride)`. An
    architecture whose size is fixed (MLP-Mixer, CaiT, BEiT, Hiera) pads up to `img_size` and refuses larger inputs;
    test it in windows of that size.

    Every trainable parameter takes part in the output: blocks after the last chosen one and the head are removed, and
    what the maps do not depend on beside them is frozen.

    Args:
        model_name: Architecture, as in `timm.create_model`.
        img_size: Height and width that position embeddings and windows are made for, in pixels.
        out_indices: Blocks (plain) or levels (pyramid, timm's numbers) to return, ascending from 0. None takes four
            blocks at even distances, the last one among them, or the levels of stride 4, 8, 16 and 32.
        out_norm: Normalise each map over its channels, as Swin and ConvNeXt are segmented with; pyramids with
            BatchNorm and the token pyramid have no need of it.
        drop_path_rate: Stochastic depth of the last block, in [0, 1); it grows linearly from 0.
        frozen_stages: -1 trains everything; n >= 0 freezes the stem, the embeddings and the first n blocks (plain) or
            stages (pyramid).
        with_cp: Recompute activations in the backward pass to save memory. The running averages of BatchNorm
            inside recomputed blocks are then updated twice a step.
        pretrained: True takes timm's weights; a path or URL is short for
            `init_cfg=dict(type='Pretrained', checkpoint=pretrained)`.
        init_cfg: How to initialise. `Pretrained` takes a pretraining checkpoint of ours, a file in timm's names or a
            segmentation model with this backbone; its key `ema=False` takes raw instead of EMA weights.
        **arguments: Everything else that the architecture takes.

    Attributes:
        channels: Width of each map.
        strides: Pixels per cell of each map.
        size_divisor: Height and width that inputs are padded to multiples of.

    Raises:
        UserError: The architecture does not exist or gives no maps, or an argument does not fit it.
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
            raise UserError('TimmTokens is given both pretrained and init_cfg: keep one of them')
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
        """Images [B, 3, H, W] -> a map [B, channels, ceil(H / stride), ceil(W / stride)] for each of `out_indices`.

        Raises:
            UserError: The architecture's size is fixed and the images are larger.
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
        """Initialises as `pretrained` or `init_cfg` say; without them the weights of construction stay.

        Raises:
            UserError: The checkpoint is missing, cannot be read, or does not fit.
        """
        if self.timm_weights:
            load_timm_release(self.model, self.model_name, self.arguments)
        elif part := pretrained_part(self.init_cfg):
            source, ema = part['checkpoint'], part.get('ema', True)
            load_timm_backbone(self.model, self.model_name, self.arguments, source, ema)
        elif self.init_cfg:
            initialize(self, self.init_cfg)

    def train(self, mode: bool = True) -> 'TimmTokens':
        """Training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.frozen_stages >= 0:
            evaluate_frozen(self.model)
        return self

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """The layer of a parameter by its name, for timm's layer decay; norms of the maps are with the last one.

        Raises:
            UserError: timm does not number the layers of this architecture.
        """
        if not hasattr(self.model, 'group_matcher'):
            raise UserError(f'timm does not number the layers of {self.model_name}: choose another constructor')
        groups = group_parameters(self.model, self.model.group_matcher(coarse=coarse), reverse=True)
        last = max(groups.values())
        return lambda name: groups.get(name.removeprefix('model.'), last)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the architecture wants no weight decay for."""
        return {f'model.{name}' for name in getattr(self.model, 'no_weight_decay', set)()}

    def _look_at_shapes(self) -> None:
        """Finds out widths and strides of the maps and which inputs the model takes; removes what is not used."""
        try:
            shapes = map_shapes(self.model, self._indices, self._in_chans, self.img_size)
        except Exception as error:  # models of timm fail in many ways
            raise UserError(
                f'{self.model_name} cannot take images of {self.img_size[0]}x{self.img_size[1]} ({_line(error)}): '
                'set img_size to a size that it can'
            ) from error
        self.channels = tuple(shape[0] for shape in shapes)
        height, width = self.img_size
        if any(height % rows or width % columns or height * columns != width * rows for _, rows, columns in shapes):
            raise UserError(
                f'the maps of {self.model_name} leave out the border of images (its convolutions have no padding): '
                'choose another model'
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
        """Whether the model takes images of any whole number of steps each way."""
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
        """Lets a segmentation model trained with another crop load: what depends on the size is resampled."""
        prefix = f'{prefix}model.'
        own = self.model.state_dict()
        state = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        if any(x.shape != own[name].shape for name, x in state.items()):
            for name, x in fitted(state, self.model, self.model_name, 'the checkpoint').items():
                state_dict[prefix + name] = x


def _create(model_name: str, size: tuple[int, int], arguments: dict) -> tuple[nn.Module, dict]:
    """The model, and all arguments it was made with."""
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
                f'{model_name} cannot be made for images of {size[0]}x{size[1]} ({_line(error)}): change img_size'
            ) from error
    raise UserError(f'{model_name} does not take the arguments of TimmTokens: {_line(refusal)}') from refusal


def _levels(model: nn.Module, model_name: str) -> list[dict]:
    levels = getattr(model, 'feature_info', None)
    if not levels or not hasattr(model, 'forward_intermediates') or not hasattr(model, 'prune_intermediate_layers'):
        raise UserError(f'{model_name} gives no intermediate maps in timm (forward_intermediates): choose another one')
    return list(levels)


def _even(reductions: Sequence[int]) -> tuple[int, ...]:
    """Four blocks at even distances where all have one stride; else the last level of each stride of a pyramid."""
    if len(set(reductions)) == 1:
        quarters = min(4, len(reductions))
        return tuple(len(reductions) * (i + 1) // quarters - 1 for i in range(quarters))
    last = {stride: i for i, stride in enumerate(reductions)}
    return tuple(last[stride] for stride in PYRAMID_STRIDES if stride in last)


def _line(error: Exception) -> str:
    return str(error).partition('\n')[0]
