"""Types of MMEngine in configs from elsewhere, such as `mmseg::` bases, and those of ours that run in their place."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from tokenlabel.engine.optim.optim_wrapper import FUSED

# Checkpoints to resume from exactly, samples that can be skipped, steps that are called off where not finite.
OURS = {
    CheckpointHook: 'ResumableCheckpointHook',
    InfiniteSampler: 'EndlessSampler',
    OptimWrapper: 'SkippingOptimWrapper',
    AmpOptimWrapper: 'SkippingAmpOptimWrapper',
}
BY_NAME = {kind.__name__: ours for kind, ours in OURS.items()}


def substitute(config: Config) -> list[str]:
    """Names our types where a config names those of MMEngine that they extend; Adam and AdamW take fused steps.

    Args:
        config: changed in place.

    Returns:
        What was replaced, a few words each.
    """
    replaced = {}
    for part, default in _parts(config):
        kind = part.get('type', default)
        ours = (BY_NAME if isinstance(kind, str) else OURS).get(kind)
        if ours:
            part['type'] = ours
            replaced[getattr(kind, '__name__', kind)] = ours
    optimizer = _dict(_dict(config.get('optim_wrapper')).get('optimizer'))
    if optimizer.get('type') in FUSED:
        optimizer.setdefault('fused', True)
    return [f'{ours} for {theirs}' for theirs, ours in replaced.items()]


def _parts(config: Config) -> Iterator[tuple[dict, str | None]]:
    """The dicts that may name such a type, each with the type that it has by default."""
    if config.get('optim_wrapper'):
        yield _dict(config.optim_wrapper), 'OptimWrapper'
    yield _dict(_dict(config.get('train_dataloader')).get('sampler')), None
    hooks = [*_dict(config.get('default_hooks')).values(), *(config.get('custom_hooks') or ())]
    yield from ((_dict(hook), None) for hook in hooks)


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}
