"""LV-ViT as a segmentation backbone: the stem and blocks of the classifier, without its final norm and heads."""

from collections.abc import Sequence
from functools import partial

from mmengine.model import initialize
from mmseg.registry import MODELS
from timm.layers import LayerNorm
from torch import Tensor

from mmseg_ext.backbones.stages import checked_indices, evaluate_frozen, freeze_stages
from mmseg_ext.checkpoints.segmentation_weights import load_backbone, pretrained_part
from tokenlabel import models
from tokenlabel.argument_checks import Natural, Rate, Size, checked
from tokenlabel.checkpoints.published_sizes import PUBLISHED_SIZES
from tokenlabel.checkpoints.weights import resampled
from tokenlabel.errors import UserError


@MODELS.register_module()
class LVViT(models.LVViT):
    """LV-ViT that returns the token maps of selected blocks, all at the stride of the patch; a neck builds a pyramid.

    Inputs may have any size and aspect ratio. The position embedding is resampled to the grid of the input. If the
    patch size does not divide the input, zeros (the mean colour) are padded on the right and bottom, so that the maps
    have `ceil(H / patch) x ceil(W / patch)` tokens. To keep predictions aligned with such inputs, pad in the data
    preprocessor (`test_cfg=dict(size_divisor=patch)`), which also removes the padding from the predictions.

    Blocks after the last selected one are removed, so that every parameter contributes to the output. The LayerNorm eps
    of 1e-6 and the parameter names are those of the released segmentation models (the classifiers' eps is 1e-5).

    Args:
        arch: A published size, `lvvit_t`, `lvvit_s`, `lvvit_m` or `lvvit_l`; None to give all sizes in `**sizes`.
        img_size: Input height and width in pixels for which the position embedding is created.
        out_indices: Blocks whose output is returned, ascending, counted from 0.
        drop_path_rate: Stochastic depth rate of the last block, in [0, 1); it grows linearly from 0 at the first.
        mlp_drop_rate: Dropout rate in the last block's MLP, in [0, 1); it grows linearly from 0 at the first. The
            released segmentation models were trained with it instead of stochastic depth.
        frozen_stages: -1 trains everything; n >= 0 freezes the stem, the embeddings and the first n blocks.
        with_cp: Recompute the blocks' activations in the backward pass to save memory.
        pretrained: Short for `init_cfg=dict(type='Pretrained', checkpoint=pretrained)`.
        init_cfg: Initialisation config of MMEngine. `Pretrained` loads the path or URL of a pretraining checkpoint of
            this project, a released classifier or a segmentation model; with `ema=False` raw instead of EMA weights.
        **sizes: Other arguments of `tokenlabel.models.LVViT` (`patch_size`, `embed_dim`, `depth`, `num_heads`,
            `mlp_ratio`, `stem_width`, `residual_divisor`...). They override those of `arch`.

    Raises:
        UserError: `arch`, `out_indices` or `frozen_stages` is invalid, or `pretrained` and `init_cfg` are both given.
    """

    @checked
    def __init__(
        self,
        arch: str | None = 'lvvit_s',
        img_size: Size = 512,
        out_indices: Sequence[Natural] = (6, 9, 12, 15),
        drop_path_rate: Rate = 0.0,
        mlp_drop_rate: Rate = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list[dict] | None = None,
        **sizes,
    ) -> None:
        if arch is not None and arch not in PUBLISHED_SIZES:
            raise UserError(f'LVViT has no arch {arch!r}: choose {", ".join(PUBLISHED_SIZES)}, or None and all sizes')
        if pretrained and init_cfg:
            raise UserError('LVViT got both pretrained and init_cfg: keep one of them')
        super().__init__(
            img_size=img_size,
            drop_path_rate=drop_path_rate,
            norm_layer=partial(LayerNorm, eps=1e-6),
            final_norm=False,
            num_classes=0,
            dynamic_img_size=True,
            dynamic_img_pad=True,
            **(PUBLISHED_SIZES.get(arch, {}) | sizes),
        )
        self.arch = arch
        self.pretrained_cfg = {'architecture': arch}  # where timm stores the name; used in messages
        self.depth = len(self.blocks)
        self.out_indices = checked_indices(out_indices, self.depth)
        self.frozen_stages = frozen_stages
        self.init_cfg = dict(type='Pretrained', checkpoint=pretrained) if pretrained else init_cfg
        self.prune_intermediate_layers(self.out_indices)
        freeze_stages(self, frozen_stages)
        self.set_grad_checkpointing(with_cp)
        self._register_load_state_dict_pre_hook(self._resample_before_loading)
        for i, block in enumerate(self.blocks):
            block.mlp.drop1.p = block.mlp.drop2.p = mlp_drop_rate * i / max(1, self.depth - 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, H, W] to a map of patch tokens [B, embed_dim, rows, cols] for each of `out_indices`."""
        return tuple(self.forward_intermediates(images, list(self.out_indices), intermediates_only=True))

    def init_weights(self, mode: str = '', needs_reset: bool = True) -> None:
        """Initialises the weights according to `init_cfg`.

        MMEngine calls this before training. timm calls a method of the same name with arguments during construction,
        when `init_cfg` does not exist yet.

        Raises:
            UserError: The checkpoint is missing, cannot be read, or does not match the model.
        """
        if not hasattr(self, 'init_cfg'):
            super().init_weights(mode, needs_reset)
        elif part := pretrained_part(self.init_cfg):
            load_backbone(self, part['checkpoint'], ema=part.get('ema', True))
        elif self.init_cfg:
            initialize(self, self.init_cfg)

    def train(self, mode: bool = True) -> 'LVViT':
        """Sets training or evaluation mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        # timm's constructor may call train() before this class has set its attributes.
        if getattr(self, 'frozen_stages', -1) >= 0:
            evaluate_frozen(self)
        return self

    def _resample_before_loading(self, state_dict: dict, prefix: str, *_) -> None:
        """Resamples the position embedding of a checkpoint that was trained with another crop size."""
        name = f'{prefix}pos_embed'
        if name in state_dict:
            state_dict[name] = resampled({'pos_embed': state_dict[name]}, self)['pos_embed']
