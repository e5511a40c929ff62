"""Any backbone of timm with a class head and a token head: the interface of LV-ViT for other families."""

import copy
from collections.abc import Callable

import timm
import torch
from timm.layers import to_2tuple, trunc_normal_
from timm.models import group_parameters, is_model_in_modules
from torch import Tensor, nn

from tokenlabel.argument_checks import Natural, NonNegative, checked
from tokenlabel.errors import UserError
from tokenlabel.models.locations import (
    Layout,
    NoLocations,
    check_cover,
    check_head,
    check_parts,
    grid_of,
    layout_of,
    model_name,
)
from tokenlabel.models.token_logits import TokenLogits, class_scores
from tokenlabel.transforms.mix_token import draw_box, drawing_device, mix_regions, mix_tokens


def has_token_logits(architecture: str) -> bool:
    """Whether timm's model of this name returns `TokenLogits` by itself, as LV-ViT does."""
    return is_model_in_modules(architecture, ['lvvit'])


class TokenLabelModel(nn.Module):
    """A timm backbone with a class head on the pooled features and a token head on every location.

    `forward` returns `TokenLogits` in training and `class_scores`, `[B, num_classes]`, in evaluation. The class head is
    the backbone's own. The token head, `aux_head`, is linear on the locations of the last feature map. The layers
    between pooling and class head (normalisation, hidden layers) are applied to each location, as in
    `DenseClassifier`. If the backbone has a token head (VOLO), the model uses that one.

    MixToken exchanges a box after the patch embedding, `backbone.patch_embed`, before position embedding and class
    token. Backbones without patch embedding, such as convolutional networks, get the box exchanged in their pixels
    (CutMix). In both cases the token logits inside the box are put back.

    The constructor runs one image of noise to find the layout of the features and to check that the head treats all
    locations alike. Attributes that the model does not have are looked up in the backbone.

    Args:
        backbone: Architecture, as in `timm.create_model`.
        num_classes: Classes of both heads; with 0 there are no heads and `forward` returns the backbone's output.
        mix_token: Draw a box per batch in training and exchange its tokens.
        token_score_weight: Weight of the best token in the evaluation score; 0 scores the class head alone.
        pretrained: Load timm's weights; a token head that they lack starts as a copy of the class head.
        **kwargs: Other arguments of the architecture.

    Raises:
        UserError: The backbone returns `TokenLogits` already, has no feature map, has a head that depends on the order
            or number of the locations, or drops tokens in training.
    """

    @checked
    def __init__(
        self,
        backbone: str,
        num_classes: Natural = 1000,
        mix_token: bool = False,
        token_score_weight: NonNegative = 0.5,
        pretrained: bool = False,
        **kwargs,
    ) -> None:
        super().__init__()
        if has_token_logits(backbone):
            raise UserError(f'{backbone} has a token head already: create it with timm.create_model.')
        self.backbone = timm.create_model(backbone, pretrained=pretrained, num_classes=num_classes, **kwargs)
        if getattr(getattr(self.backbone, 'patch_drop', None), 'prob', 0) > 0:
            raise UserError(f'{backbone} drops tokens in training and every token has a label: set patch_drop_rate=0.')
        self.mix_token = mix_token
        self.token_score_weight = token_score_weight
        self._image_size = to_2tuple(kwargs.get('img_size') or self.backbone.pretrained_cfg['input_size'][1:])
        self._in_chans = kwargs.get('in_chans') or self.backbone.pretrained_cfg['input_size'][0]
        self._probe_with_noise()
        self.aux_head = self._new_token_head(pretrained)
        self._mixing: tuple[Tensor, tuple[int, int], tuple[int, int]] | None = None
        if self._patch_format is not None:
            # The hook is permanent: adding and removing it would make torch.compile recompile.
            self.backbone.patch_embed.register_forward_hook(self._mix_patches)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == 'backbone' or name.startswith('_'):
                raise
            return getattr(self.backbone, name)

    @property
    def pretrained_cfg(self) -> dict:
        """The backbone's `pretrained_cfg`, with its first layer and classifiers under their names in this model."""
        config = dict(self.backbone.pretrained_cfg)
        classifiers = config.get('classifier') or ()
        classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
        backbone_heads = [f'backbone.{name}' for name in classifiers if name != 'aux_head']
        first = config.get('first_conv')
        first = tuple(f'backbone.{name}' for name in ((first,) if isinstance(first, str) else first or ()))
        first_conv = first[0] if len(first) == 1 else first
        return config | {'classifier': (*backbone_heads, 'aux_head'), 'first_conv': first_conv}

    @property
    def default_cfg(self) -> dict:
        """timm's older name for `pretrained_cfg`."""
        return self.pretrained_cfg

    def forward(self, x: Tensor, mix_box: Tensor | tuple[int, int, int, int] | None = None) -> TokenLogits | Tensor:
        """Logits in training, scores in evaluation.

        Args:
            x: Images, `[B, C, H, W]`.
            mix_box: Box `(y1, x1, y2, x2)` in tokens to exchange with the reversed batch, in training only. None draws
                a box if the model has `mix_token=True`.

        Raises:
            ValueError: A box is given in evaluation.
        """
        if not self.training and mix_box is not None:
            raise ValueError('mix_box exchanges tokens in training only: call model.train() or leave it out')
        if not self.training or not self.num_classes:
            return self.forward_head(self.forward_features(x))
        if mix_box is None and self.mix_token:
            mix_box = draw_box(self._grid(x), device=drawing_device(x))
        if mix_box is not None:
            mix_box = torch.as_tensor(mix_box).to(x.device, non_blocking=True)
        features = self.forward_features(x, mix_box)
        _, rows, columns, _ = layout_of(self.backbone, features, x.shape[-2:])
        cls, tokens = self.backbone.forward_head(features), self.token_logits(features)
        if mix_box is not None:
            tokens = mix_tokens(tokens.unflatten(1, (rows, columns)), mix_box).flatten(1, 2)
        return TokenLogits(cls, tokens, (rows, columns), mix_box)

    def forward_features(self, x: Tensor, mix_box: Tensor | tuple[int, int, int, int] | None = None) -> Tensor:
        """The backbone's last features, before pooling; a mixed box is not put back."""
        if mix_box is None:
            return self.backbone.forward_features(x)
        grid = self._grid(x)
        if self._patch_format is None:
            return self.backbone.forward_features(_exchanged(x, mix_box, grid, 'NCHW', x.shape[-2:]))
        self._mixing = mix_box, grid, x.shape[-2:]
        try:
            return self.backbone.forward_features(x)
        finally:
            self._mixing = None

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Evaluation scores `[B, C]` of `forward_features`' output, or the pooled features before the class head."""
        if pre_logits or not self.num_classes or self.token_score_weight == 0:
            return self.backbone.forward_head(x, pre_logits=pre_logits)
        return class_scores(self.backbone.forward_head(x), self.token_logits(x), self.token_score_weight)

    def token_logits(self, x: Tensor) -> Tensor:
        """Logits of the locations, `[B, N, C]`, row by row, from `forward_features`' output."""
        cells = self._layout.cells(x)
        return self.aux_head(self._vectors(self._layout.as_maps(cells.flatten(0, 1)))).unflatten(0, cells.shape[:2])

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the class and token heads by new ones for `num_classes` classes; 0 removes them.

        Raises:
            UserError: With this pooling the head depends on the order or number of the locations.
        """
        self.backbone.reset_classifier(num_classes, **({} if global_pool is None else {'global_pool': global_pool}))
        if global_pool is not None:
            self._probe_with_noise()
        self.aux_head = self._new_token_head()

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the backbone excludes from weight decay."""
        names = getattr(self.backbone, 'no_weight_decay', set)()
        return {f'backbone.{name}' for name in names}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """Maps a parameter's name to its layer, for timm's layer decay; the token head is in the class head's layer."""
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=coarse), reverse=True)
        last = max(groups.values())
        return lambda name: groups.get(name.removeprefix('backbone.'), last)

    def _grid(self, x: Tensor) -> tuple[int, int]:
        """(rows, columns) of the tokens of images `x`, cached for each image size."""
        size = tuple(x.shape[-2:])
        if size in self._grids:
            return self._grids[size]
        grid = self._found_grid(size)
        if not torch.compiler.is_compiling():  # writing to the cache would make torch.compile compile twice
            self._grids[size] = grid
        return grid

    @torch.compiler.assume_constant_result
    def _found_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Runs while torch.compile traces and is not part of the graph."""
        return self._features_of_noise(size)[1][1:3]

    def _vectors(self, features: Tensor) -> Tensor:
        """The input of the class head, `[B, D]`."""
        return self.backbone.forward_head(features, pre_logits=True).flatten(1)

    def _mix_patches(self, module: nn.Module, inputs: tuple, output):
        """Forward hook of the patch embedding, whose output may be a tuple of patches and grid size."""
        if self._mixing is None:
            return output
        box, grid, image_size = self._mixing
        if isinstance(output, tuple):
            return (_exchanged(output[0], box, grid, self._patch_format, image_size), *output[1:])
        return _exchanged(output, box, grid, self._patch_format, image_size)

    def _probe_with_noise(self) -> None:
        """Finds the layouts of the features and of the patch embedding's output, and the width of the token head."""
        training, patches = self.backbone.training, []
        patch_embed = getattr(self.backbone, 'patch_embed', None)
        hook = isinstance(patch_embed, nn.Module) and patch_embed.register_forward_hook(
            lambda module, inputs, output: patches.append(output)
        )
        self.backbone.eval()
        try:
            with torch.no_grad():
                check_parts(self.backbone)
                features, self._layout = self._features_of_noise(self._image_size, self.backbone)
                check_cover(self.backbone, self._layout, self._image_size)
                check_head(self._vectors, features, self._layout)
                self._width = self._vectors(features).shape[1]
        except NoLocations as error:
            raise UserError(
                f'{model_name(self.backbone)} cannot have a token head: {error}; choose another backbone, or train '
                'with image labels on the class head alone.'
            ) from error
        finally:
            if hook:
                hook.remove()
            self.backbone.train(training)
        self._grids = {self._image_size: self._layout[1:3]}
        self._patch_format = _patch_format(patch_embed, patches, self._image_size)

    @torch.no_grad()
    def _features_of_noise(self, size: tuple[int, int], backbone: nn.Module | None = None) -> tuple[Tensor, Layout]:
        """Features of one image of noise, computed by a copy of the model in evaluation mode."""
        backbone = copy.deepcopy(self.backbone).eval() if backbone is None else backbone
        noise = torch.randn(1, self._in_chans, *size, generator=torch.Generator().manual_seed(0))
        features = backbone.forward_features(noise.to(next(backbone.parameters())))
        return features, layout_of(backbone, features, size)

    def _new_token_head(self, pretrained: bool = False) -> nn.Module:
        own = getattr(self.backbone, 'aux_head', None)
        if isinstance(own, nn.Linear):
            self.backbone.aux_head = None
            return own
        if not self.num_classes:
            return nn.Identity()
        like = next(self.backbone.parameters())
        head = nn.Linear(self._width, self.num_classes, device=like.device, dtype=like.dtype)
        trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        classifier = self.backbone.get_classifier()
        if pretrained and isinstance(classifier, nn.Linear) and classifier.weight.shape == head.weight.shape:
            head.load_state_dict(classifier.state_dict(), strict=False)  # a class head may have no bias
        return head.train(self.training)


def _exchanged(x: Tensor, box: Tensor, grid: tuple[int, int], kind: str, image_size: tuple[int, int]) -> Tensor:
    """Pixels or patches, with the box exchanged with that of the reversed batch."""
    if kind == 'NHWC':
        return mix_regions(x, box, grid)
    if kind == 'NCHW':
        return mix_regions(x.permute(0, 2, 3, 1), box, grid).permute(0, 3, 1, 2)
    return mix_regions(x.unflatten(1, grid_of(x.shape[1], image_size)), box, grid).flatten(1, 2)


def _patch_format(patch_embed: nn.Module | None, outputs: list, image_size: tuple[int, int]) -> str | None:
    """Layout of a patch embedding's output, see `Layout.kind`; None if it is not clearly a map of patches."""
    if len(outputs) == 0:
        return None
    patches = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    if not isinstance(patches, Tensor):
        return None
    if patches.ndim == 3:
        return None if grid_of(patches.shape[1], image_size) is None else 'tokens'
    if patches.ndim != 4:
        return None
    (height, width), kinds = image_size, {'NHWC': patches.shape[1:3], 'NCHW': patches.shape[2:]}
    fitting = [kind for kind, (rows, columns) in kinds.items() if rows * width == columns * height]
    stated = getattr(patch_embed, 'output_fmt', None)
    if stated in fitting:
        return str(getattr(stated, 'value', stated))
    return fitting[0] if len(fitting) == 1 else None
