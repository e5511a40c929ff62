"""LV-ViT: a vision transformer with a convolutional stem, divided residual branches and a head on every token.

Jiang et al., "All Tokens Matter: Token Labeling for Training Better Vision Transformers", NeurIPS 2021. Attribute
names follow the released files, so released weights load by name.
"""

import logging
from functools import partial

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import LayerNorm, PatchEmbed, nchw_to, to_2tuple, trunc_normal_
from timm.models import adapt_input_conv, build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.argument_checks import Count, NonNegative, Positive, Size, checked
from tokenlabel.checkpoints.published_sizes import PUBLISHED_SIZES
from tokenlabel.checkpoints.weights import load_weights, read_checkpoint, resample_pos_embed, resampled, state_dict_of
from tokenlabel.errors import UserError
from tokenlabel.models.token_logits import TokenLogits, class_scores
from tokenlabel.transforms.mix_token import draw_box, drawing_device, mix_tokens

__all__ = ['ConvStem', 'LVViT']  # timm adds the entry points

_logger = logging.getLogger(__name__)


class LVViT(VisionTransformer):
    """timm's vision transformer with a convolutional stem, a residual divisor, MixToken and a token head (`aux_head`).

    `forward` returns `TokenLogits` in training and `class_scores`, `[B, num_classes]`, in evaluation. Without classes
    (`num_classes=0`) or without pooling (`global_pool=''`) it returns what timm's model returns, in either mode.

    Args:
        img_size: Height and width in pixels, multiples of `patch_size`.
        patch_size: Pixels per token side. It must be even, because the first convolution has stride 2.
        mlp_ratio: Hidden width of the MLP over `embed_dim`.
        qkv_bias: Whether queries, keys and values have a bias.
        norm_layer: LayerNorm with eps 1e-5 by default, as in the released classifiers.
        stem_width: Channels of the stem's three convolutions.
        residual_divisor: Divisor of every residual branch.
        mix_token: In training, draw a box per batch and exchange its tokens (MixToken).
        token_score_weight: Weight of the best token in the evaluation score; 0 scores the class token alone.
        **kwargs: Other arguments of timm's `VisionTransformer`.

    Raises:
        UserError: An argument is out of range, or the patch size is odd or does not divide the image size.
        ValueError: `mix_token` is combined with `patch_drop_rate`, or `init_values` with a residual divisor.
    """

    @checked
    def __init__(
        self,
        img_size: Size = 224,
        patch_size: Size = 16,
        mlp_ratio: Positive = 3.0,
        qkv_bias: bool = False,
        norm_layer: type[nn.Module] | str | None = None,
        stem_width: Count = 64,
        residual_divisor: Positive = 1.0,
        mix_token: bool = False,
        token_score_weight: NonNegative = 0.5,
        **kwargs,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            norm_layer=norm_layer or partial(LayerNorm, eps=1e-5),
            embed_layer=partial(ConvStem, stem_width=stem_width),
            block_fn=partial(DividedBlock, residual_divisor=residual_divisor),
            **kwargs,
        )
        self.mix_token = mix_token
        self.token_score_weight = token_score_weight
        self.drops_tokens = kwargs.get('patch_drop_rate', 0.0) > 0
        if mix_token and self.drops_tokens:
            raise ValueError('mix_token needs every token, patch_drop_rate removes some: set one of them to 0')
        self.aux_head = self._new_head()

    def forward(self, x: Tensor, mix_box: Tensor | tuple[int, int, int, int] | None = None) -> TokenLogits | Tensor:
        """Logits in training, scores in evaluation.

        Args:
            x: Images, `[B, C, H, W]`.
            mix_box: Box `(y1, x1, y2, x2)` in tokens to exchange with the reversed batch, in training only. None draws
                a box if the model has `mix_token=True`. `torch.compile` makes one graph for all boxes given as
                tensors, but a new graph for every box given as a tuple.

        Raises:
            UserError: The patch size does not divide the image, or the image does not have the model's size.
            ValueError: A box is given in evaluation or together with `patch_drop_rate`.
        """
        if not self.training and mix_box is not None:
            raise ValueError('mix_box exchanges tokens in training only: call model.train() or leave it out')
        if not self.training or not self.num_classes or not self.global_pool:
            return self.forward_head(self.forward_features(x, mix_box))

        grid = self.patch_embed.dynamic_feat_size(x.shape[-2:])
        if mix_box is None and self.mix_token:
            mix_box = draw_box(grid, device=drawing_device(x))
        if mix_box is not None:
            mix_box = torch.as_tensor(mix_box).to(x.device, non_blocking=True)
        features = self.forward_features(x, mix_box)
        cls = self.head(super().forward_head(features, pre_logits=True))
        if self.drops_tokens:
            return TokenLogits(cls)
        tokens = self.token_logits(features)
        if mix_box is not None:
            tokens = _exchange(tokens, grid, mix_box)
        return TokenLogits(cls, tokens, grid, mix_box)

    def forward_features(self, x: Tensor, mix_box: Tensor | tuple[int, int, int, int] | None = None) -> Tensor:
        """Tokens after the final norm, prefix tokens first, `[B, 1 + N, D]`; a mixed box is not put back."""
        x = self.patch_embed(x)
        if mix_box is not None:
            if self.drops_tokens:
                raise ValueError('mix_box needs every token, patch_drop_rate removes some: set it to 0')
            grid = x.shape[1:3] if self.dynamic_img_size else self.patch_embed.grid_size
            x = _exchange(x, grid, mix_box)
        x = self.norm_pre(self.patch_drop(self._pos_embed(x)))
        # Recomputing the stem would update its BatchNorm statistics twice.
        x = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Evaluation scores `[B, C]` of `forward_features`' output, or the pooled features before the class head."""
        pooled = super().forward_head(x, pre_logits=True)
        if pre_logits:
            return pooled
        cls = self.head(pooled)
        if not self.num_classes or not self.global_pool or self.token_score_weight == 0:
            return cls
        return class_scores(cls, self.token_logits(x), self.token_score_weight)

    def token_logits(self, x: Tensor) -> Tensor:
        """Logits of the patch tokens, `[B, N, C]`, from `forward_features`' output."""
        return self.aux_head(self.head_drop(self.fc_norm(x[:, self.num_prefix_tokens :])))

    def init_weights(self, mode: str = '', needs_reset: bool = True) -> None:
        """timm's initialisation, but with std 0.02 for the class token, as in the release (timm: 1e-6)."""
        super().init_weights(mode, needs_reset)
        if self.cls_token is not None:
            trunc_normal_(self.cls_token, std=0.02)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the class and token heads by new ones for `num_classes` classes; 0 removes them."""
        super().reset_classifier(num_classes, global_pool)
        self.head = self._new_head()
        self.aux_head = self._new_head()

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Changes the input resolution and resamples the position embedding.

        Raises:
            UserError: The patch size does not divide the new size, or `patch_size` differs from that of the stem.
        """
        old_grid = self.patch_embed.grid_size
        self.patch_embed.set_input_size(img_size, patch_size)
        if self.pos_embed is not None:
            pos_embed = self._resampled_pos_embed(old_grid, self.patch_embed.grid_size)
            if pos_embed is not self.pos_embed:
                self.pos_embed = nn.Parameter(pos_embed.detach(), requires_grad=self.pos_embed.requires_grad)
        super().set_input_size(self.patch_embed.img_size)  # only records the new size: nothing is left to resample

    def load_pretrained(self, checkpoint_path: str, prefix: str = '') -> None:
        """Loads a released file for `timm.create_model(..., pretrained=True)`, EMA weights first.

        Args:
            checkpoint_path: File that `load_checkpoint` reads.
            prefix: Part of timm's signature, unused.
        """
        state = state_dict_of(read_checkpoint(checkpoint_path), ema=True, source=checkpoint_path)
        stem = 'patch_embed.conv1.weight'
        if stem in state and state[stem].shape[1:2] == (3,) != (self.in_chans,):
            _logger.warning('%s: the stem is adapted to %d input channels', checkpoint_path, self.in_chans)
            state[stem] = adapt_input_conv(self.in_chans, state[stem])
        load_weights(self, state, source=checkpoint_path)

    def _pos_embed(self, x: Tensor) -> Tensor:
        if not self.dynamic_img_size or self.pos_embed is None:
            return super()._pos_embed(x)
        pos_embed = self._resampled_pos_embed(self.patch_embed.grid_size, x.shape[1:3])
        x = x.flatten(1, 2)
        prefix = [token.expand(len(x), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        if self.no_embed_class:
            x = torch.cat([*prefix, x + pos_embed], dim=1)
        else:
            x = torch.cat([*prefix, x], dim=1) + pos_embed
        return self.pos_drop(x)

    def _resampled_pos_embed(self, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
        num_prefix_tokens = 0 if self.no_embed_class else self.num_prefix_tokens
        return resample_pos_embed(self.pos_embed, new_grid, old_grid, num_prefix_tokens)

    def _new_head(self) -> nn.Module:
        if not self.num_classes:
            return nn.Identity()
        like = next(self.parameters())
        head = nn.Linear(self.embed_dim, self.num_classes, device=like.device, dtype=like.dtype)
        self._init_weights(head)
        return head.train(self.training)


class ConvStem(PatchEmbed):
    """Patch embedding by convolutions: a 7x7 with stride 2, two 3x3, then a projection to one token per patch.

    The three convolutions have no bias and are followed by BatchNorm and ReLU (Figure 2 of the paper, released files).

    Args:
        img_size: Height and width in pixels, multiples of `patch_size`.
        patch_size: Pixels per token side, even.
        in_chans: Image channels.
        embed_dim: Token width.
        stem_width: Channels of the three convolutions.
        bias: Whether the projection has a bias.
        **kwargs: Other arguments of timm's `PatchEmbed`.

    Raises:
        UserError: The patch size is odd or does not divide the image size.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        stem_width: int = 64,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs,
    ) -> None:
        dd = {'device': device, 'dtype': dtype}
        if any(side % 2 for side in to_2tuple(patch_size)):
            raise UserError(
                f'patch_size {patch_size} is odd, the stem halves the image: use an even patch size such as 16'
            )
        super().__init__(img_size, patch_size, in_chans, embed_dim, bias=bias, **dd, **kwargs)
        self.conv1 = nn.Conv2d(in_chans, stem_width, 7, stride=2, padding=3, bias=False, **dd)
        self.bn1 = nn.BatchNorm2d(stem_width, **dd)
        self.conv2 = nn.Conv2d(stem_width, stem_width, 3, padding=1, bias=False, **dd)
        self.bn2 = nn.BatchNorm2d(stem_width, **dd)
        self.conv3 = nn.Conv2d(stem_width, stem_width, 3, padding=1, bias=False, **dd)
        self.bn3 = nn.BatchNorm2d(stem_width, **dd)
        half_patch = tuple(side // 2 for side in self.patch_size)
        self.proj = nn.Conv2d(stem_width, embed_dim, half_patch, stride=half_patch, bias=bias, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` to tokens, `[B, N, D]`, or `[B, rows, cols, D]` if the output format is NHWC."""
        height, width = x.shape[-2:]
        if not self.dynamic_img_pad:
            self._check_divides((height, width))
        if self.strict_img_size and (height, width) != self.img_size:
            raise UserError(
                f'the model was made for {self.img_size[0]}x{self.img_size[1]} images and got {height}x{width}: '
                'call set_input_size, or create it with dynamic_img_size=True'
            )
        if self.dynamic_img_pad:
            x = F.pad(x, (0, -width % self.patch_size[1], 0, -height % self.patch_size[0]))
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        x = self.proj(x)
        x = x.flatten(2).transpose(1, 2) if self.flatten else nchw_to(x, self.output_fmt)
        return self.norm(x)

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Changes the image size; see `LVViT.set_input_size`."""
        if patch_size is not None and to_2tuple(patch_size) != self.patch_size:
            raise UserError(
                f'patch_size is fixed at {self.patch_size} by the stem and cannot become {to_2tuple(patch_size)}: '
                'create the model with the patch_size you need'
            )
        super().set_input_size(None if img_size is None else to_2tuple(img_size))

    def _init_img_size(self, img_size: int | tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int], int]:
        self._check_divides(to_2tuple(img_size))
        return super()._init_img_size(img_size)

    def _check_divides(self, img_size: tuple[int, int]) -> None:
        if any(size % side for size, side in zip(img_size, self.patch_size, strict=True)):
            height, width = (-(-size // side) * side for size, side in zip(img_size, self.patch_size, strict=True))
            raise UserError(
                f'patch size {self.patch_size[0]}x{self.patch_size[1]} does not divide the image size '
                f'{img_size[0]}x{img_size[1]} (height x width): use for example {height}x{width}'
            )


class DividedBlock(Block):
    """timm's transformer block with both residual branches divided by a constant: `x + drop_path(f(norm(x)) / d)`."""

    def __init__(self, *args, residual_divisor: float = 1.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if residual_divisor != 1:
            if kwargs.get('init_values'):
                raise ValueError('residual_divisor and init_values both scale the residual branch: set one of them')
            self.ls1 = ResidualDivisor(residual_divisor)
            self.ls2 = ResidualDivisor(residual_divisor)


class ResidualDivisor(nn.Module):
    """Divides by a constant; replaces timm's LayerScale and has no parameters."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor

    def extra_repr(self) -> str:
        return f'{self.divisor:g}'


def _exchange(x: Tensor, grid: tuple[int, int], box: Tensor | tuple[int, int, int, int]) -> Tensor:
    """Exchanges the box of tokens with the reversed batch; tokens are `[B, N, D]` or `[B, rows, cols, D]`."""
    return mix_tokens(x.reshape(len(x), *grid, x.shape[-1]), box).reshape(x.shape)


def checkpoint_filter_fn(state_dict: dict, model: LVViT) -> dict[str, Tensor]:
    """Released weights under the names and at the grid of `model`, for timm's own loader."""
    return resampled(state_dict_of(state_dict, ema=True), model)


def _cfg(file: str, size: int, crop_pct: float) -> dict:
    return {
        'url': f'https://github.com/zihangJiang/TokenLabeling/releases/download/{file}',
        'custom_load': True,  # files may carry an argparse.Namespace, which timm refuses in downloads
        'num_classes': 1000,
        'input_size': (3, size, size),
        'fixed_input_size': True,
        'pool_size': None,
        'crop_pct': crop_pct,
        'interpolation': 'bicubic',
        'mean': IMAGENET_DEFAULT_MEAN,
        'std': IMAGENET_DEFAULT_STD,
        'first_conv': 'patch_embed.conv1',
        'classifier': ('head', 'aux_head'),
        'origin_url': 'https://github.com/zihangJiang/TokenLabeling',
        'paper_ids': 'arXiv:2104.10858',
    }


default_cfgs = generate_default_cfgs(
    {
        'lvvit_t.release_224': _cfg('v0.2.0/lvvit_t.pth', 224, 0.9),
        'lvvit_s.release_224': _cfg('1.0/lvvit_s-26M-224-83.3.pth.tar', 224, 0.9),
        'lvvit_s.release_384': _cfg('1.0/lvvit_s-26M-384-84.4.pth.tar', 384, 0.9),
        'lvvit_m.release_224': _cfg('1.0/lvvit_m-56M-224-84.0.pth.tar', 224, 1.0),
        'lvvit_m.release_384': _cfg('1.0/lvvit_m-56M-384-85.4.pth.tar', 384, 1.0),
        'lvvit_m.release_448': _cfg('1.0/lvvit_m-56M-448-85.5.pth.tar', 448, 1.0),
        'lvvit_l.release_448': _cfg('1.0/lvvit_l-150M-448-86.2.pth.tar', 448, 1.0),
        'lvvit_l.release_512': _cfg('1.0/lvvit_l-150M-512-86.4.pth.tar', 512, 1.0),
    }
)


def _create_lvvit(variant: str, pretrained: bool, **kwargs) -> LVViT:
    out_indices = kwargs.pop('out_indices', 3)
    return build_model_with_cfg(
        LVViT,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={'out_indices': out_indices, 'feature_cls': 'getter'},
        **(PUBLISHED_SIZES[variant] | kwargs),
    )


@register_model
def lvvit_t(pretrained: bool = False, **kwargs) -> LVViT:
    """LV-ViT-T, 8.53 M parameters, 79.1 % top-1 at 224."""
    return _create_lvvit('lvvit_t', pretrained, **kwargs)


@register_model
def lvvit_s(pretrained: bool = False, **kwargs) -> LVViT:
    """LV-ViT-S, 26.15 M parameters, 83.3 % top-1 at 224 and 84.4 % at 384."""
    return _create_lvvit('lvvit_s', pretrained, **kwargs)


@register_model
def lvvit_m(pretrained: bool = False, **kwargs) -> LVViT:
    """LV-ViT-M, 55.83 M parameters, 84.0 % top-1 at 224, 85.4 % at 384 and 85.5 % at 448."""
    return _create_lvvit('lvvit_m', pretrained, **kwargs)


@register_model
def lvvit_l(pretrained: bool = False, **kwargs) -> LVViT:
    """LV-ViT-L, 150.02 M parameters at 224; 86.2 % top-1 at 448, its size here by default, and 86.4 % at 512."""
    return _create_lvvit('lvvit_l', pretrained, **kwargs)
