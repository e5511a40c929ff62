"""Layer-wise learning-rate decay: a backbone's earlier layers get lower learning rates."""

from collections import defaultdict

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from timm.optim import param_groups_layer_decay
from torch import nn

from tokenlabel.errors import UserError

# Names of token and position parameters, in addition to the architecture's own `no_weight_decay`.
TOKENS = (
    '*cls_token',
    '*dist_token',
    '*reg_token',
    '*register_token*',
    '*mask_token',
    '*pos_embed*',
    '*relative_position_bias_table',
    '*rel_pos*',
)
NO_DECAY_ANYWAY = ('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
MULTIPLIERS = {'lr_mult', 'decay_mult'}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TimmLayerDecay(DefaultOptimWrapperConstructor):
    """Optimiser constructor with a learning rate per layer, for backbones with timm's layer numbering.

    The last layer of `model.backbone` and all parameters outside it have the full learning rate. Each earlier layer has
    `layer_decay` times the rate of the next. The backbone's `group_matcher` defines the layers, as in timm's
    `param_groups_layer_decay`. One-dimensional parameters (norms, biases, layer scales), class and other tokens,
    position embeddings and bias tables have no weight decay in the whole model.

        optim_wrapper = dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            constructor='TimmLayerDecay',
            paramwise_cfg=dict(layer_decay=0.8, custom_keys=dict(decode_head=dict(lr_mult=10))),
        )

    `paramwise_cfg` has:

    - `layer_decay`: in (0, 1]; 1 gives every layer the full rate.
    - `custom_keys`: as in MMEngine, the longest key that occurs in a parameter's name applies; its `lr_mult` and
      `decay_mult` multiply the layer's learning rate and the weight decay.
    - `norm_decay_mult`, `bias_decay_mult`, `flat_decay_mult`: only 0 is allowed, which is the behaviour anyway.

    Raises:
        UserError: `layer_decay` is missing or out of range, `paramwise_cfg` has an unknown key, the optimiser has no
            `lr` or `weight_decay`, or the backbone does not number its layers.
    """

    def _validate_cfg(self) -> None:
        settings = dict(self.paramwise_cfg)
        layer_decay = settings.pop('layer_decay', None)
        if not isinstance(layer_decay, int | float) or not 0 < layer_decay <= 1:
            raise UserError(f'paramwise_cfg.layer_decay is {layer_decay} but must be a number above 0 and up to 1')
        if self.base_lr is None or self.base_wd is None:
            raise UserError('TimmLayerDecay needs optim_wrapper.optimizer.lr and .weight_decay: state both')
        super()._validate_cfg()
        for key, multipliers in settings.pop('custom_keys', {}).items():
            if unknown := multipliers.keys() - MULTIPLIERS:
                raise UserError(
                    f'custom_keys.{key} has {_listing(unknown)}: TimmLayerDecay takes lr_mult and decay_mult'
                )
        unknown = {name for name, value in settings.items() if name not in NO_DECAY_ANYWAY or value != 0}
        if unknown:
            raise UserError(
                f'paramwise_cfg has {_listing(unknown)}: TimmLayerDecay takes layer_decay and custom_keys, and '
                f'{", ".join(NO_DECAY_ANYWAY)} where they are 0'
            )

    def add_params(self, params: list[dict], module: nn.Module, **_) -> None:
        """Appends the groups of all trainable parameters, one per pair of learning rate and weight decay.

        Args:
            params: Groups for the optimiser, extended in place.
            module: The model, with a `backbone`.
        """
        backbone = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'group_matcher'):
            raise UserError(
                f'{type(backbone).__name__} does not number its layers: use the backbone LVViT or TimmTokens, or '
                'another optim_wrapper.constructor'
            )
        layers = param_groups_layer_decay(
            backbone,
            weight_decay=self.base_wd,
            no_weight_decay_list={*backbone.no_weight_decay(), *TOKENS},
            layer_decay=self.paramwise_cfg['layer_decay'],
        )
        of_backbone = {id(x): (group['lr_scale'], group['weight_decay']) for group in layers for x in group['params']}
        groups = defaultdict(list)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                decay = 0.0 if parameter.ndim <= 1 else self.base_wd
                scale, decay = of_backbone.get(id(parameter), (1.0, decay))
                lr_mult, decay_mult = self._multipliers(name)
                groups[self.base_lr * scale * lr_mult, decay * decay_mult].append(parameter)
        params += [dict(params=group, lr=lr, weight_decay=decay) for (lr, decay), group in groups.items()]

    def _multipliers(self, name: str) -> tuple[float, float]:
        """The multipliers of a parameter's learning rate and weight decay from `custom_keys`."""
        keys = self.paramwise_cfg.get('custom_keys', {})
        matching = sorted((key for key in keys if key in name), key=lambda key: (-len(key), key))
        chosen = keys[matching[0]] if matching else {}
        return chosen.get('lr_mult', 1.0), chosen.get('decay_mult', 1.0)


def _listing(names: set[str]) -> str:
    return ', '.join(sorted(names))
