"""Turns exceptions raised while a config is built into one sentence with the key's path."""

import os
import re
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from mmengine.config import Config

from tokenlabel.errors import UserError

# Exceptions that constructors raise for invalid values. Others are bugs and keep their traceback.
REFUSALS = (
    ArithmeticError,
    AssertionError,
    FileNotFoundError,
    IndexError,
    IsADirectoryError,
    KeyError,
    NotADirectoryError,
    NotImplementedError,
    PermissionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
# Counts as well if a package raises it, but not if this project or the user's own classes do.
OF_PACKAGES = (AttributeError,)
# Functions of MMEngine's Runner that read a part of the config, and the key of that part.
READERS = {
    'build_logger': 'log_level',
    'build_log_processor': 'log_processor',
    'build_visualizer': 'visualizer',
    'build_model': 'model',
    'build_optim_wrapper': 'optim_wrapper',
    'build_param_scheduler': 'param_scheduler',
    '_check_scheduler_cfg': 'param_scheduler',
    'build_evaluator': 'val_evaluator and test_evaluator',
    'build_train_loop': 'train_cfg',
    'build_val_loop': 'val_cfg',
    'build_test_loop': 'test_cfg',
    'build_dataloader': 'a dataloader',
    'register_hooks': 'default_hooks and custom_hooks',
    'scale_lr': 'auto_scale_lr',
    'set_randomness': 'randomness',
    'setup_env': 'env_cfg',
    'wrap_model': 'model_wrapper_cfg',
    'turn_on_efficient_conv_bn_eval': 'efficient_conv_bn_eval',
    'turn_on_activation_checkpointing': 'activation_checkpointing',
    'step': 'param_scheduler',
}
# The modules of these functions; a schedule's `step` may need a metric that is not computed.
READING = {
    'mmengine.runner.runner',
    'tokenlabel.engine.runner',
    'mmengine.optim.optimizer.builder',
    'mmengine.optim.scheduler.param_scheduler',
    'mmengine.model.efficient_conv_bn_eval',
    'mmengine.runner.activation_checkpointing',
}
_PACKAGES = {sysconfig.get_path('purelib'), sysconfig.get_path('platlib'), sysconfig.get_path('stdlib')}


@contextmanager
def explains_errors(path: str | Path, config: Config | None = None) -> Iterator[None]:
    """Turns exceptions caused by bad configs and bad images into one sentence; other exceptions pass through.

    An exception counts if it is raised while something is built from the config: an unknown type, an unknown argument,
    an invalid value.

    Args:
        path: path of the config file.
        config: the config, from which the sentence takes the key's path.

    Raises:
        UserError: the config cannot be built; it logs to a service whose package is missing; or an image of a
            segmentation dataset cannot be decoded.
    """
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        # raised by logging back ends, which MMEngine imports at the first write
        if 'pip install' not in str(error):
            raise
        raise UserError(f'Config {path} logs to a service whose package is missing ({error}).') from error
    except (*REFUSALS, *OF_PACKAGES) as error:
        if broken := re.findall(r'failed to load image: (.*)', str(error)):
            raise UserError(f'{broken[-1]} cannot be read as an image; replace or remove it.') from error
        place = _place_of(error, config)
        if place is None or (isinstance(error, OF_PACKAGES) and not _is_of_package(error)):
            raise
        if isinstance(error, KeyError) and ' is not in the ' in str(error):
            unknown = str(error.args[0]).split('. ')[0]
            raise UserError(f'Config {path} names an unknown type: {unknown} ({place}).') from error
        raise UserError(f'Config {path} cannot be built: {place}: {_reason(error)}.') from error


def _place_of(error: Exception, config: Config | None) -> str | None:
    """The path of the key that an error was raised for; None if nothing was being built."""
    place = None
    within = config
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name, module = frame.f_code.co_name, frame.f_globals.get('__name__', '')
        if name == 'build_from_cfg' and module == 'mmengine.registry.build_functions':
            path, within = _found(frame.f_locals.get('cfg'), within, place)
            place = path or place
        elif name in READERS and _is_runner(frame):
            place = place if place and name == 'build_dataloader' else READERS[name]
        elif name == 'create_network':
            place = 'model.network'
        elif place is None and name == '__init__' and module == 'mmengine.runner.runner':
            place = 'its keys'
    return place


def _found(settings: object, within: object, place: str | None) -> tuple[str | None, object]:
    """Finds `settings`, or the dict most like them, in a config: its path, and the dict."""
    kind = settings.get('type') if isinstance(settings, Mapping) else None
    named = getattr(kind, '__name__', str(kind))
    if within is None:
        return f'{place}, {named}' if place else named, None
    candidates = [(path, node) for path, node in _nodes(within) if node.get('type') == kind]
    if not candidates:
        return (f'{place}, {named}' if place and kind else place or named), None
    path, node = max(candidates, key=lambda found: sum(settings.get(key) == value for key, value in found[1].items()))
    inner = place and isinstance(within, Mapping) and not isinstance(within, Config)
    return (f'{place}.{path}' if inner and path else place if inner else path), node


def _nodes(node: object, path: str = '') -> Iterator[tuple[str, Mapping]]:
    """All dicts below a dict or list with their paths, outer ones first."""
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, Mapping):
        yield path, node
        children = node.items()
    elif isinstance(node, list | tuple):
        children = enumerate(node)
    else:
        return
    for key, value in children:
        yield from _nodes(value, f'{path}.{key}' if path else str(key))


def _is_runner(frame: FrameType) -> bool:
    return frame.f_globals.get('__name__', '') in READING


def _is_of_package(error: Exception) -> bool:
    """Whether an error was raised by an installed package."""
    # a torch module without an attribute raises in its own `__getattr__`: look at the caller
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name != '__getattr__']
    file = frames[-1].filename
    return file.startswith('<') or any(file.startswith(folder + os.sep) for folder in _PACKAGES)


def _reason(error: Exception) -> str:
    """The message of an error without the part of the config that it prints."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = re.split(r',? but got \w+=\{', ' '.join(text.split()))[0]
    text = text.split('. ')[0] if len(text) > 300 else text
    kind = type(error).__name__
    return f'{text[:300].removesuffix(".")}' if text and not isinstance(error, KeyError) else f'{kind} {text}'.strip()
