"""Reads a config file, applies `--cfg-options`, and refuses keys that would have no effect."""

import argparse
import copy
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import mmengine.runner
from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import MODELS, init_default_scope

from tokenlabel.argument_checks import shown
from tokenlabel.engine.config.errors import explains_errors
from tokenlabel.engine.config.files import read_config
from tokenlabel.engine.config.options import ConfigOptions, merge_options
from tokenlabel.errors import UserError, missing_package
from tokenlabel.files.shipped_configs import config_name, config_path
from tokenlabel.processes.launch_environment import launched_place

__all__ = [
    'ConfigOptions',
    'add_run_arguments',
    'explains_errors',
    'load_config',
    'load_run_config',
    'register_imports',
]

# Top-level keys that are read: arguments of the Runner, keys it looks up in its config, and keys of the tools.
RUNNER_KEYS = set(inspect.signature(mmengine.runner.Runner.__init__).parameters) - {'self', 'cfg'}
LOOKED_UP_KEYS = {
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'env_cfg',
    'find_unused_parameters',
    'initial_weights',
    'keep_global_batch',
    'log_level',
    'model_wrapper_cfg',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}
KNOWN_KEYS = RUNNER_KEYS | LOOKED_UP_KEYS
# Helper variables in MMSegmentation's configs that look like misspelt keys.
CUSTOMARY_NAMES = {'models', 'test_pipeline'}
PLAIN = (str, int, float, complex, bool, bytes, type(None), type, os.PathLike, LazyObject, LazyAttr)
# Settings that torch refuses for a loader without workers, and their neutral values.
OF_WORKERS = {'persistent_workers': False, 'prefetch_factor': None, 'timeout': 0}


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Reads a config, given by path or by the name of a shipped one, and applies `--cfg-options`.

    Files may define helper variables (`crop_size = ...`), unless their name is close to that of a known key. An option
    on the command line must start with a known key. A loader without workers loses the settings of workers.

    Raises:
        UserError: the file is missing or cannot be read, a key is misspelt, an option would have no effect, or a value
            does not belong in a config (a module, an open file, NaN).
    """
    path = config_path(path)
    config = read_config(path)
    for key in config:
        if key not in KNOWN_KEYS | CUSTOMARY_NAMES and (close := _nearest(key)):
            raise UserError(f'Config {path} sets `{key}`, which nothing reads: did you mean `{close}`?')
    for option in options or {}:
        key = option.split('.')[0]
        if key and key not in KNOWN_KEYS:
            hint = f'did you mean `{close}`?' if (close := _nearest(key)) else 'options start with a key of the Runner.'
            raise UserError(f'--cfg-options {option} would change nothing in {path}: {hint}')
    merge_options(config, options or {}, str(path))
    _drop_delete_marks(config._cfg_dict)
    _keep_values(config, path)
    for stage in ('train', 'val', 'test'):
        loader = config.get(f'{stage}_dataloader')
        if isinstance(loader, Mapping) and loader.get('num_workers', 0) == 0:
            loader |= {key: value for key, value in OF_WORKERS.items() if key in loader}
    import_modules(config, path)
    return config


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that training and evaluation share."""
    parser.add_argument('--work-dir', type=Path, help='folder of logs and checkpoints (work_dirs/CONFIG)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, help='config entries to change: a.b=1 c.d=[2,3]'
    )
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_run_config(args: argparse.Namespace) -> Config:
    """Reads `args.config`, applies the options of `add_run_arguments`, registers its imports and checks it.

    Raises:
        UserError: as `load_config` and `check_config`.
    """
    # imported here, as it imports all parts of a run
    from tokenlabel.engine.config.schema import check_config

    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    launched_place(args.launcher)
    config = load_config(args.config, args.cfg_options)
    config.work_dir = str(args.work_dir or config.get('work_dir') or Path('work_dirs', config_name(args.config)))
    config.launcher = args.launcher
    register_imports(config)
    check_config(config, args.config)
    return config


def register_imports(config: Config) -> None:
    """Imports the modules of the config and sets its default scope, before anything is built from it.

    Raises:
        UserError: a module is missing or fails to import, or no installed package has that scope.
    """
    import_modules(config, config.filename)
    scope = config.get('default_scope')
    scope = 'mmengine' if scope is None else scope
    if not isinstance(scope, str) or not _is_scope(scope):
        raise UserError(
            f'Config {config.filename} sets default_scope to {shown(scope)}, which no installed package registers: set '
            "'mmengine', or 'mmseg' for segmentation."
        )
    init_default_scope(scope)


def import_modules(config: Config, path: str | Path | None) -> None:
    """Imports the modules of `custom_imports`; prints the traceback of a module that fails.

    Raises:
        UserError: `custom_imports` names no modules, one is missing, or fails while it is imported.
    """
    settings = config.get('custom_imports')
    if not settings:
        return
    if not isinstance(settings, Mapping) or set(settings) - {'imports', 'allow_failed_imports'}:
        raise UserError(
            f"Config {path} sets custom_imports to {shown(settings)}: give dict(imports=['package.module'])."
        )
    names = settings.get('imports') or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f'Config {path} sets custom_imports.imports to {shown(names)}: give a list of modules.')
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            if missing_package(error):
                raise
            is_missing = isinstance(error, ModuleNotFoundError) and f'{name}.'.startswith(f'{error.name}.')
            if settings.get('allow_failed_imports') and isinstance(error, ImportError):
                warnings.warn(f'{name} of custom_imports cannot be imported and is left out: {error}', stacklevel=2)
            elif is_missing or (isinstance(error, TypeError) and name.startswith('.')):
                raise UserError(
                    f'Config {path} imports {name} (custom_imports), which is not there: install it, or add its folder '
                    'to PYTHONPATH.'
                ) from error
            else:
                traceback.print_exception(error, file=sys.stderr)
                raise UserError(
                    f'Config {path} imports {name} (custom_imports), which fails with the traceback above: '
                    f'{type(error).__name__}: {error}.'
                ) from error


def _keep_values(config: Config, path: Path) -> None:
    """Removes helper variables that hold no config values (modules, functions); refuses such values in known keys."""
    for key in list(config):
        for place, value in _leaves(config[key], key):
            if _is_value(value):
                continue
            if key not in KNOWN_KEYS:
                config.pop(key)
                break
            raise UserError(
                f'Config {path} sets {place} to {shown(value)}, which is not a config value: give a number, a string, '
                'a list, a dict, or a class.'
            )


def _drop_delete_marks(node: object) -> None:
    """Removes `_delete_=True` from dicts that inherited nothing to delete."""
    if isinstance(node, dict):
        node.pop('_delete_', None)
    children = dict.values(node) if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
    for child in children:
        _drop_delete_marks(child)


def _leaves(node: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f'{path}.{key}')
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _leaves(value, f'{path}.{number}')
    else:
        yield path, node


def _is_value(value: object) -> bool:
    """Whether a value can be copied and dumped, as a run does with its config."""
    if isinstance(value, float):
        return value == value
    if isinstance(value, PLAIN):
        return True
    if isinstance(value, ModuleType):
        return False
    try:
        copy.deepcopy(value)
        compile(repr(value), 'value', 'eval')
    except Exception:  # any object may raise anything
        return False
    return True


def _is_scope(scope: str) -> bool:
    if scope == 'mmengine' or scope in MODELS.children:
        return True
    try:
        return importlib.util.find_spec(f'{scope}.registry') is not None
    except (ImportError, ValueError):
        return False


def _nearest(key: str) -> str | None:
    """The key that `key` most likely misspells, if any."""
    matches = difflib.get_close_matches(key, KNOWN_KEYS, n=1, cutoff=0.87)
    return matches[0] if matches else None
