"""Replaces MMEngine types in configs, such as `mmseg::` bases, by the subclasses of this project."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from tokenlabel.engine.optim.optim_wrapper import FUSED

# They resume exactly, skip samples on resume, and skip non-finite steps.
SUBCLASSES = {
    CheckpointHook: 'ResumableCheckpointHook',
    InfiniteSampler: 'EndlessSampler',
    OptimWrapper: 'SkippingOptimWrapper',
    AmpOptimWrapper: 'SkippingAmpOptimWrapper',
}
BY_NAME = {kind.__name__: subclass for kind, subclass in SUBCLASSES.items()}


def substitute(config: Config) -> list[str]:
    """Replaces MMEngine types by their subclasses in this project, and sets `fused=True` for Adam and AdamW.

    Args:
        config: config, changed in place.

    Returns:
        The replacements, as 'NEW for OLD'.
    """
    replaced = {}
    for part, default in _parts(config):
        kind = part.get('type', default)
        subclass = (BY_NAME if isinstance(kind, str) else SUBCLASSES).get(kind)
        if subclass:
            part['type'] = subclass
            replaced[getattr(kind, '__name__', kind)] = subclass
    optimizer = _dict(_dict(config.get('optim_wrapper')).get('optimizer'))
    if optimizer.get('type') in FUSED:
        optimizer.setdefault('fused', True)
    return [f'{subclass} for {original}' for original, subclass in replaced.items()]


def _parts(config: Config) -> Iterator[tuple[dict, str | None]]:
    """The dicts that may name such a type, each with its default type."""
    if config.get('optim_wrapper'):
        yield _dict(config.optim_wrapper), 'OptimWrapper'
    yield _dict(_dict(config.get('train_dataloader')).get('sampler')), None
    hooks = [*_dict(config.get('default_hooks')).values(), *(config.get('custom_hooks') or ())]
    yield from ((_dict(hook), None) for hook in hooks)


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}
