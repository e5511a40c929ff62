"""Sets one ignored label in all parts of a config that have such a setting."""

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
PADS = ('seg_pad_val', 'pad_val')  # MMSegmentation's configs often set these to 255


def settle_ignore_index(config: Config) -> int:
    """Sets one ignored label for data sets, pipelines, padding, heads, their losses and metrics, and returns it.

    Set it for a data set, for example `train_dataloader.dataset.ignore_index`; all places without a setting get the
    same label. MMSegmentation has a separate key for each of them, with the default 255, and its loss fails if padding
    uses another label than the heads ignore. If no data set has the setting, heads, pipelines or metrics may set a
    label that is not a class. Padding follows.

    Args:
        config: A segmentation config whose `custom_imports` are done; changed in place.

    Raises:
        UserError: Two places have different labels, a label is outside 0 to 255, or heads, pipelines or metrics ignore
            a class that no data set ignores.
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
            f'{one} is {first} but {other} is {second}, so a label is ignored in one place and learned or scored in '
            'the other: set both to the same, or set it only for the data set.'
        )
    label, place = next(iter(stated.items()), (IGNORED, 'the label to ignore'))
    of_data = any(settings.get('ignore_index') == label for settings, _ in _data_sets(config))
    num_classes = [head.get('num_classes') for head, _ in heads_of(config)]
    if not of_data and any(isinstance(number, int) and label < number for number in num_classes):
        raise UserError(
            f'{place} is {label}, the number of a class that the data sets do not ignore: set ignore_index={label} '
            'for them, or leave it out.'
        )
    for padded, path in pads.items():
        if padded not in (label, IGNORED):
            raise UserError(
                f'{place} is {label} but {path} is {padded}, so padding would be learned as class {padded}: leave out '
                f'{path}.'
            )
    if label != IGNORED:
        for settings, key, _ in places:
            settings[key] = _with_label(settings, key, label)
    return label


def _data_sets(config: Config) -> list[tuple[dict, str]]:
    """The data sets that are no wrappers, each with its path."""
    found = [one for split in SPLITS for one in datasets_of(config, split)]
    return [(dataset, path) for dataset, path, wraps in found if not wraps]


def _places(config: Config) -> Iterator[tuple[dict, str, str]]:
    """All settings of an ignored label, as (settings, key, path)."""
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
                # in DiceLoss, this name excludes a class such as the background
                if not str(loss.get('type')).endswith('DiceLoss') or loss.get('ignore_index') in (None, IGNORED):
                    for key in _ignoring_keys(MODELS, loss):
                        yield loss, key, f'{where}.{key}'
    preprocessor = model.get('data_preprocessor') or {}
    if str(preprocessor.get('type')).endswith('SegDataPreProcessor'):
        yield preprocessor, 'seg_pad_val', f'{path}.data_preprocessor.seg_pad_val'


def _ignoring_keys(registry: Registry, settings: Mapping) -> list[str]:
    """Arguments of a registered class that set the ignored label: those with a default of 255 or None."""
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
    """The label set under a key; `Pad` has it inside a dict, or means 255 if the value is a number."""
    value = settings[key]
    return value if key != 'pad_val' else value.get('seg', IGNORED) if isinstance(value, Mapping) else IGNORED


def _with_label(settings: Mapping, key: str, label: int) -> Any:
    """The value of a key that sets this label."""
    if key != 'pad_val':
        return label
    value = settings.get(key, 0)
    return {**(value if isinstance(value, Mapping) else {'img': value}), 'seg': label}
