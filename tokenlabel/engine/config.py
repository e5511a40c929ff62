"""Reading a config file, its options on the command line, and refusing keys that would have no effect."""

import argparse
import difflib
import inspect
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mmengine.runner
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from tokenlabel.engine.config_scope import enable_mmseg_scope
from tokenlabel.errors import UserError
from tokenlabel.launch_environment import launched_place

# Top-level keys that are read: the Runner's own arguments, what it looks up in its config, and what the tools read.
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
    'sharding',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}
KNOWN_KEYS = RUNNER_KEYS | LOOKED_UP_KEYS
# Names that MMSegmentation's own configs use while they are read, and that only look like misspelt keys.
CUSTOMARY_NAMES = {'models', 'test_pipeline'}


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Reads a config file and applies `--cfg-options`.

    Names that a config uses while it is read (`crop_size = ...`) are allowed in files; one that nearly spells a key
    that is read is taken for a mistake. An option on the command line has to start with a key that is read.

    Raises:
        UserError: the file is missing or cannot be read, a key is misspelt, or an option would have no effect.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'No config at {path}: the ones that come with this project are in configs/.')
    enable_mmseg_scope()
    try:
        config = Config.fromfile(path)
    except Exception as error:
        raise UserError(f'Config {path} cannot be read: {type(error).__name__}: {error}.') from error
    for key in config:
        if key not in KNOWN_KEYS | CUSTOMARY_NAMES and (close := _nearest(key)):
            raise UserError(f'Config {path} sets `{key}`, which nothing reads: did you mean `{close}`?')
    for option in options or {}:
        key = option.split('.')[0]
        if key not in KNOWN_KEYS:
            hint = f'did you mean `{close}`?' if (close := _nearest(key)) else 'options start with a key of the Runner.'
            raise UserError(f'--cfg-options {option} would change nothing in {path}: {hint}')
    config.merge_from_dict(options or {})
    return config


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that training and evaluation share."""
    parser.add_argument('--work-dir', type=Path, help='folder of logs and checkpoints (work_dirs/CONFIG)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='config entries to change: a.b=1 c.d=[2,3]')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_run_config(args: argparse.Namespace) -> Config:
    """The config of `args.config` with the options of `add_run_arguments`, what it imports registered.

    Raises:
        UserError: as `load_config`.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    launched_place(args.launcher)
    config = load_config(args.config, args.cfg_options)
    config.work_dir = str(args.work_dir or config.get('work_dir') or Path('work_dirs', args.config.stem))
    config.launcher = args.launcher
    register_imports(config)
    return config


def register_imports(config: Config) -> None:
    """Imports what the config names, and makes its scope the default, before anything is built from it."""
    if imports := config.get('custom_imports'):
        import_modules_from_strings(**imports)
    init_default_scope(config.get('default_scope', 'mmengine'))


def _nearest(key: str) -> str | None:
    """The key that `key` most likely misspells, if any."""
    matches = difflib.get_close_matches(key, KNOWN_KEYS, n=1, cutoff=0.87)
    return matches[0] if matches else None


@contextmanager
def explains_errors(path: str | Path) -> Iterator[None]:
    """Turns what MMEngine and MMSegmentation raise for bad configs and bad images into one sentence.

    Raises:
        UserError: the config names an unknown class, or gives a class an argument that it does not have; it logs to a
            service whose package is missing; an image of a segmentation dataset cannot be decoded.
    """
    try:
        yield
    except TypeError as error:
        if 'unexpected keyword argument' not in str(error) and 'required positional argument' not in str(error):
            raise
        raise UserError(f'Config {path} has a misspelt or missing key: {error}.') from error
    except KeyError as error:
        if 'registry' not in str(error):
            raise
        raise UserError(f'Config {path} names an unknown type: {str(error.args[0]).split(". ")[0]}.') from error
    except ImportError as error:
        # of the logging back ends, which MMEngine imports when it first writes to them
        if 'pip install' not in str(error):
            raise
        raise UserError(f'Config {path} logs to a service whose package is missing ({error}).') from error
    except AssertionError as error:
        broken = re.findall(r'failed to load image: (.*)', str(error))
        if not broken:
            raise
        raise UserError(f'{broken[-1]} cannot be read as an image; replace or remove it.') from error
