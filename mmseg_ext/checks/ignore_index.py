"""One label that is neither learned nor scored, the same wherever a config can say it."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmseg.registry import METRICS, MODELS, TRANSFORMS

from mmseg_ext.checks.config_parts import (
    EDGE_HEADS,
    SPLITS,
    datasets_of,
    heads_of,
    losses_of,
    metrics_of,
    model_of,
    steps_of,
)
from tokenlabel.errors import UserError

IGNORED = 255  # MMSegmentation's default
PADS = ('seg_pad_val', 'pad_val')  # what MMSegmentation's configs state as 255 by habit


def settle_ignore_index(config: Config) -> int:
    """Gives data sets, pipelines, padding, heads, their losses and metrics one label to ignore, and returns it.

    A data set states it, such as `train_dataloader.dataset.ignore_index`, and the places that state none get it:
    MMSegmentation has a key for each of them, all of which default to 255, and padding with another label than the
    heads ignore ends in its loss. Where no data set does, heads, pipelines or metrics may state a label that is no
    class. Padding follows.

    Args:
        config: A segmentation config whose `custom_imports` are done; changed in place.

    Raises:
        UserError: Two places state different labels, one a label that no mask can hold, or heads, pipelines or metrics
            alone that of a class.
    """
    places = list(_places(config))
    stated, pads = {}, {}
    for settings, key, path in places:
        label = None if settings.get(key) is None else _label(settings, key)
        if label is None:
            continue
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label <= IGNORED:
            raise UserError(f'{path} is {label!r}: set one of the numbers that a mask can hold, 0 to 255.')
        (pads if key in PADS else stated).setdefault(label, path)
    if len(stated) > 1:
        (first, one), (second, other), *_ = stated.items()
        raise UserError(
            f'{one} is {first} and {other} is {second}, so that one label is ignored here and learned or scored there: '
            'set both to the same, or state it once, for the data set.'
        )
    label, place = next(iter(stated.items()), (IGNORED, 'the label to ignore'))
    of_data = any(settings.get('ignore_index') == label for settings, _ in _data_sets(config))
    num_classes = [head.get('num_classes') for head, _ in heads_of(config)]
    if not of_data and any(isinstance(number, int) and label < number for number in num_classes):
        raise UserError(
            f'{place} is {label}, the number of a class, and the data sets do not ignore it: set ignore_index={label} '
            'for them, or leave it out.'
        )
    for padded, path in pads.items():
        if padded not in (label, IGNORED):
            raise UserError(
                f'{place} is {label} and {path} is {padded}, so that padding would be learned as class {padded}: leave '
                'the latter out.'
            )
    if label != IGNORED:
        for settings, key, _ in places:
            settings[key] = _with_label(settings, key, label)
    return label


def _data_sets(config: Config) -> list[tuple[dict, str]]:
    """The data sets that wrap no others, each with its place."""
    found = [one for split in SPLITS for one in datasets_of(config, split)]
    return [(dataset, path) for dataset, path, wraps in found if not wraps]


def _places(config: Config) -> Iterator[tuple[dict, str, str]]:
    """What states a label to ignore, as settings, key and place."""
    pipelines = [(config.get('tta_pipeline'), 'tta_pipeline')]
    for dataset, path in _data_sets(config):
        yield dataset, 'ignore_index', f'{path}.ignore_index'
    for split in SPLITS:
        pipelines += [(dataset.get('pipeline'), f'{path}.pipeline') for dataset, path, _ in datasets_of(config, split)]
        for metric, path in metrics_of(config, split):
            for key in _ignoring_keys(METRICS, metric):
                yield metric, key, f'{path}.{key}'
    for pipeline, path in pipelines:
        for step, place in steps_of(pipeline, path):
            for key in _ignoring_keys(TRANSFORMS, step):
                yield step, key, f'{place}.{key}'
    model, path = model_of(config)
    for head, place in heads_of(config):
        if head.get('type') not in EDGE_HEADS:
            yield head, 'ignore_index', f'{place}.ignore_index'
            for loss, where in losses_of(head, place):
                # DiceLoss leaves out a class by that name, such as the background
                if not str(loss.get('type')).endswith('DiceLoss') or loss.get('ignore_index') in (None, IGNORED):
                    for key in _ignoring_keys(MODELS, loss):
                        yield loss, key, f'{where}.{key}'
    preprocessor = model.get('data_preprocessor') or {}
    if str(preprocessor.get('type')).endswith('SegDataPreProcessor'):
        yield preprocessor, 'seg_pad_val', f'{path}.data_preprocessor.seg_pad_val'


def _ignoring_keys(registry: Registry, settings: Mapping) -> list[str]:
    """The arguments of what a registry builds that say which label is ignored: those whose default is 255 or open."""
    kind = registry.get(settings['type']) if isinstance(settings.get('type'), str) else settings.get('type')
    if kind is None:
        return []
    parameters = inspect.signature(kind).parameters
    found = [
        key
        for key in ('ignore_index', 'ignore_label', 'seg_pad_val')
        if key in parameters and parameters[key].default in (IGNORED, None)
    ]
    default = parameters['pad_val'].default if 'pad_val' in parameters else None
    return [*found, 'pad_val'] if isinstance(default, dict) and default.get('seg') == IGNORED else found


def _label(settings: Mapping, key: str) -> Any:
    """What settings state under a key; `Pad` has it inside a dict, and 255 for a number."""
    value = settings[key]
    return value if key != 'pad_val' else value.get('seg', IGNORED) if isinstance(value, Mapping) else IGNORED


def _with_label(settings: Mapping, key: str, label: int) -> Any:
    """What stands under a key that states this label."""
    if key != 'pad_val':
        return label
    value = settings.get(key, 0)
    return {**(value if isinstance(value, Mapping) else {'img': value}), 'seg': label}
