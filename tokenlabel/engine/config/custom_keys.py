"""Finds keys of `optim_wrapper.paramwise_cfg.custom_keys` that match no parameter and so have no effect."""

from collections.abc import Mapping

from torch import nn

# Recipes exempt these from weight decay for whole families of networks, some of which lack them.
CUSTOMARY = {
    'absolute_pos_embed',
    'bias',
    'cls_token',
    'dist_token',
    'gamma',
    'mask_token',
    'norm',
    'pos_embed',
    'rel_pos',
    'relative_position_bias_table',
}


def unmatched_keys(model: nn.Module, optim_wrapper: object) -> list[str]:
    """Custom keys that match no parameter, except `CUSTOMARY` keys that only set `decay_mult=0`."""
    settings = optim_wrapper.get('paramwise_cfg') if isinstance(optim_wrapper, Mapping) else None
    keys = (settings or {}).get('custom_keys') or {}
    # MMEngine looks for a key in 'PREFIX.NAME', where the prefix of a parameter at the top is empty
    names = [f'{"" if "." in name else "."}{name}' for name, _ in model.named_parameters()]
    return [
        key
        for key, multipliers in keys.items()
        if not any(key in name for name in names) and not (key in CUSTOMARY and dict(multipliers) == {'decay_mult': 0})
    ]


def warning_of_unmatched(model: nn.Module, optim_wrapper: object) -> str | None:
    """A one-sentence warning about unmatched keys; None if there are none."""
    if not (keys := unmatched_keys(model, optim_wrapper)):
        return None
    names = list(dict(model.named_parameters()))
    return (
        f'No parameter has {" or ".join(keys)} in its name, so {"it has" if len(keys) == 1 else "they have"} no effect '
        f'in optim_wrapper.paramwise_cfg.custom_keys: parameters have names such as {names[0]} and {names[-1]}.'
    )
