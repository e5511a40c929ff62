"""Compares the config of a run with the one its checkpoint was written with, and logs the differences."""

import ast
from collections.abc import Iterator, Mapping
from itertools import zip_longest

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from tokenlabel.engine.config.run_config import KNOWN_KEYS

# Settings that do not affect what a run learns: output places, logs, evaluation, loading speed.
IMMATERIAL = {
    'custom_imports',
    'default_hooks.logger',
    'default_hooks.timer',
    'default_hooks.visualization',
    'env_cfg',
    'experiment_name',
    'initial_weights',
    'launcher',
    'load_from',
    'log_level',
    'log_processor',
    'resume',
    'test_cfg',
    'test_dataloader',
    'test_evaluator',
    'tta_model',
    'tta_pipeline',
    'visualizer',
    'work_dir',
    *(
        f'{loader}_dataloader.{key}'
        for loader in ('train', 'val')
        for key in ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')
    ),
}
ABSENT = 'nothing'
NUM_NAMED = 20  # differences listed; the rest are counted
LONGEST = 60  # characters shown of a setting


def facts_of(runner: Runner) -> dict:
    """Facts about a run that a checkpoint stores beside the config: number of images and class names."""
    facts = {'images': len(runner.train_dataloader.dataset)}
    if classes := _class_names(runner):
        facts['classes'] = classes
    return facts


def differences(runner: Runner, checkpoint: dict, rate: float | None, stored_rate: float | None) -> list[str]:
    """The differences between the run that wrote a checkpoint and the run that resumes from it, a few words each.

    Args:
        runner: the resuming runner, with loader and optimizer built.
        checkpoint: contents of the checkpoint; its config is compared as text and never executed.
        rate: the configured learning rate before schedules; None if there is none.
        stored_rate: the learning rate before schedules in the checkpoint; None if there is none.
    """
    meta = checkpoint['meta']
    found = _in_settings('', stored_settings(meta), _settings(runner.cfg.pretty_text)) if 'cfg' in meta else []
    if rate != stored_rate and stored_rate is not None and not any('optimizer.lr ' in one for one in found):
        found.append(_change('learning rate before schedules', stored_rate, rate))
    seed, stored_seed = runner._randomness_cfg.get('seed'), meta.get('seed')
    changed = None not in (seed, stored_seed) and seed != stored_seed
    if changed and not any('randomness.seed ' in one for one in found):
        found.append(_change('seed', stored_seed, seed))
    facts, stored = facts_of(runner), meta.get('facts')
    stored = stored if isinstance(stored, dict) else {}
    if 'classes' not in stored and isinstance(meta.get('dataset_meta'), dict):  # of earlier versions
        stored = stored | {'classes': meta['dataset_meta'].get('classes')}
    for name in ('images', 'classes'):
        before, now = _plain(stored.get(name)), _plain(facts.get(name))
        reported = any(f'dataset.{name} ' in one for one in found)
        if before is not None and now is not None and before != now and not reported:
            found.append(_change(name, before, now))
    processes = meta.get('random_states')
    if isinstance(processes, list) and len(processes) != runner.world_size:
        found.append(
            f'processes {len(processes)} -> {runner.world_size} (so the random numbers and the images of an iteration '
            'differ)'
        )
    return found


def announce(runner: Runner, filename: str, found: list[str]) -> None:
    """Logs the differences in one line."""
    if found:
        more = f'; and {len(found) - NUM_NAMED} more' if len(found) > NUM_NAMED else ''
        runner.logger.warning(
            f'The config differs from the one that {filename} was written with, and the config applies: '
            f'{"; ".join(found[:NUM_NAMED])}{more}.'
        )


def stored_settings(meta: Mapping) -> dict:
    """The config in a checkpoint's `meta` as dicts, lists and constants; empty if there is none."""
    return _settings(meta.get('cfg'))


def _settings(text: object) -> dict:
    """The assignments in a config's text that a run reads, without executing it; empty if it cannot be parsed."""
    try:
        tree = ast.parse(text if isinstance(text, str) else '')
        return {
            line.targets[0].id: _value(line.value)
            for line in tree.body
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
            if line.targets[0].id in KNOWN_KEYS
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _value(node: ast.AST) -> object:
    """Evaluates dicts, lists and constants; returns anything else as source text."""
    if isinstance(node, ast.Dict):
        keys = (str(_value(key)) for key in node.keys)
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ast.unparse(node)


def _in_settings(name: str, before: object, now: object) -> list[str]:
    unset = [value is None or value == ABSENT for value in (before, now)]
    if name in IMMATERIAL or before == now or all(unset):
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in sorted(before.keys() | now.keys()):
            found += _in_settings(f'{name}.{key}'.lstrip('.'), before.get(key, ABSENT), now.get(key, ABSENT))
        return found
    lists = [[] if none else value for none, value in zip(unset, (before, now), strict=True)]
    if all(isinstance(one, list) for one in lists) and any(map(_has_parts, lists)):
        pairs = _entries_that_differ(*lists)
        return [one for number, old, new in pairs for one in _in_settings(f'{name}.{number}', old, new)]
    return [_change(name, before, now)]


def _class_names(runner: Runner) -> list[str] | None:
    metainfo = getattr(runner.train_dataloader.dataset, 'metainfo', None)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    names = metainfo.get('classes') if isinstance(metainfo, dict) else getattr(model, 'class_names', None)
    return None if names is None else [str(name) for name in names]


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value


def _has_parts(values: list) -> bool:
    return any(isinstance(value, dict | list) for value in values)


def _entries_that_differ(before: list, now: list) -> Iterator[tuple[int, object, object]]:
    """Index, old and new entry between the common beginning and the common end of two lists."""
    shorter = min(len(before), len(now))
    start = next((n for n in range(shorter) if before[n] != now[n]), shorter)
    ends = next((n for n in range(shorter - start) if before[-1 - n] != now[-1 - n]), shorter - start)
    old, new = before[start : len(before) - ends], now[start : len(now) - ends]
    for number, (one, other) in enumerate(zip_longest(old, new, fillvalue=ABSENT), start):
        yield number, one, other


def _change(name: str, before: object, now: object) -> str:
    """Old and new value of a setting; of long values only the part that differs."""
    texts = [value if value == ABSENT else repr(value) for value in (before, now)]
    same = next((n for n, pair in enumerate(zip(*texts, strict=False)) if len(set(pair)) > 1), min(map(len, texts)))
    start = same - 20 if max(map(len, texts)) > LONGEST and same > LONGEST // 2 else 0
    return f'{name} {_cut(texts[0], start)} -> {_cut(texts[1], start)}'


def _cut(text: str, start: int = 0) -> str:
    text = f'...{text[start:]}' if start else text
    return text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'
