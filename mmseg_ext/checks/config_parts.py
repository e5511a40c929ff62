"""The parts of a segmentation config that several checks need, each with its path in the config."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

SPLITS = ('train', 'val', 'test')
EDGE_HEADS = ('STDCHead',)  # they predict edges, with a fixed number of classes


def model_of(config: Config) -> tuple[dict, str]:
    """The segmentor and its path, also inside a model of test-time augmentation."""
    model = config.get('model') or {}
    return (model['module'], 'model.module') if model.get('module') else (model, 'model')


def heads_of(config: Config) -> list[tuple[dict, str]]:
    """The heads of the model, each with its path; lists of heads are flattened."""
    model, path = model_of(config)
    found = []
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name) or []
        if isinstance(heads, Mapping):
            found.append((heads, f'{path}.{name}'))
        else:
            found += [(head, f'{path}.{name}.{number}') for number, head in enumerate(heads)]
    if model.get('num_classes') is not None:
        for head, _ in found:
            head.setdefault('num_classes', model['num_classes'])
    return found


def losses_of(head: Mapping, path: str) -> list[tuple[dict, str]]:
    """The losses of a head, each with its path."""
    losses = head.get('loss_decode') or []
    if isinstance(losses, Mapping):
        return [(losses, f'{path}.loss_decode')]
    return [(loss, f'{path}.loss_decode.{number}') for number, loss in enumerate(losses)]


def datasets_of(config: Config, split: str) -> Iterator[tuple[dict, str, bool]]:
    """The data set of a split and all data sets inside wrappers, each with its path and whether it is a wrapper."""
    path = f'{split}_dataloader'
    yield from _within((config.get(path) or {}).get('dataset') or {}, f'{path}.dataset')


def metrics_of(config: Config, split: str) -> list[tuple[dict, str]]:
    """The metrics of a split, each with its path."""
    path = f'{split}_evaluator'
    evaluator = config.get(path) or []
    if isinstance(evaluator, Mapping) and 'metrics' in evaluator:
        path, evaluator = f'{path}.metrics', evaluator['metrics']
    if isinstance(evaluator, Mapping):
        return [(evaluator, path)]
    return [(metric, f'{path}.{number}') for number, metric in enumerate(evaluator) if isinstance(metric, Mapping)]


def steps_of(pipeline: Any, path: str = 'pipeline') -> Iterator[tuple[dict, str]]:
    """The transforms of a pipeline, including nested ones, each with its path."""
    if isinstance(pipeline, (list, tuple)):
        for number, inner in enumerate(pipeline):
            yield from steps_of(inner, f'{path}.{number}')
    elif isinstance(pipeline, Mapping):
        if 'type' in pipeline:
            yield pipeline, path
        for key, inner in pipeline.items():
            if isinstance(inner, (list, tuple, Mapping)):
                yield from steps_of(inner, f'{path}.{key}')


def _within(dataset: Mapping, path: str) -> Iterator[tuple[dict, str, bool]]:
    inner = [(part, f'{path}.datasets.{number}') for number, part in enumerate(dataset.get('datasets', ()))]
    inner += [(dataset['dataset'], f'{path}.dataset')] if 'dataset' in dataset else []
    if dataset:
        yield dataset, path, bool(inner)
    for part, place in inner:
        yield from _within(part, place)
