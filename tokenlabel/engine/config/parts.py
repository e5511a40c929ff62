"""Checks one part of a config: its type, and the name, type and range of each argument."""

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, NoReturn, get_args

from mmengine.registry import (
    DATASETS,
    METRICS,
    MODELS,
    TASK_UTILS,
    TRANSFORMS,
    VISBACKENDS,
    WEIGHT_INITIALIZERS,
    Registry,
)

from tokenlabel.argument_checks import Ascending, Range, described, fits, shown
from tokenlabel.engine.config.ranges import HINTS, RANGES, READ
from tokenlabel.engine.config.signatures import EMPTY, Arguments, arguments_of, keys_read
from tokenlabel.errors import UserError

# Packages whose type hints and argument names are trusted; other classes are the user's own.
KNOWN_PACKAGES = {'tokenlabel', 'mmseg_ext', 'mmengine', 'mmseg', 'mmcv', 'timm', 'torch'}
# Similarity above which a name counts as a misspelling of another.
ALIKE = 0.8
# Registry in which an argument of this name looks up its type; MODELS otherwise.
NESTED = {
    'init_cfg': WEIGHT_INITIALIZERS,
    'pipeline': TRANSFORMS,
    'transform': TRANSFORMS,
    'transforms': TRANSFORMS,
    'dataset': DATASETS,
    'datasets': DATASETS,
    'targets': TASK_UTILS,
    'vis_backends': VISBACKENDS,
    'metrics': METRICS,
    'data_preprocessor': MODELS,
    'backbone': MODELS,
    'neck': MODELS,
    'decode_head': MODELS,
    'auxiliary_head': MODELS,
    'loss_decode': MODELS,
}
# Those that are always built from a dict or a list of dicts.
BUILT = set(NESTED) - {'transform', 'metrics'}
# Settings with a range that may name a file instead.
OF_FILES = {'class_weight'}
# Layers of mmcv take settings beside the constructor's arguments; they are checked when the layers are built.
LAYERS = {'norm_cfg', 'act_cfg', 'conv_cfg', 'upsample_cfg', 'padding_cfg', 'plugins', 'override', 'dcn'}
# Keys that initialisers, and `Pretrained` of this project's backbones, take beside their arguments.
OF_INITIALIZERS = ('ema', 'override', 'layer')


class Parts:
    """Checks values of a config; methods take a value and its key's path, and raise `UserError` if it is invalid.

    Args:
        where: start of every message, which names the config.
    """

    # Arguments that are passed on to something else: (class, argument) -> the method that checks them.
    handed_on: ClassVar[dict[tuple[str, str], str]] = {}
    # Classes whose `**kwargs` another class takes: name -> (the argument that names it, its registry).
    forwarding: ClassVar[dict[str, tuple[str, Registry]]] = {'EMAHook': ('ema_type', MODELS)}

    def __init__(self, where: str) -> None:
        self.where = where

    def refuse(self, what: str) -> NoReturn:
        """Raises: UserError: the config does `what`."""
        raise UserError(f'{self.where} {what}')

    def value(self, value: object, path: str, hint: object, loose: bool = False) -> None:
        """Checks a value against a type hint, as `fits`."""
        if not fits(value, hint, loose):
            self.refuse(f'sets {path} to {shown(value)}: give {described(hint)}.')

    def each(self, values: object, path: str, check: Callable[[object, str], None]) -> None:
        """Checks the entries of a list; None is allowed."""
        if values is None:
            return
        self.value(values, path, list)
        for number, value in enumerate(values):
            check(value, f'{path}.{number}')

    def built(
        self,
        settings: object,
        path: str,
        registry: Registry,
        given: Iterable[str] | None = (),
        extra: Iterable[str] = (),
        default: str | None = None,
    ) -> None:
        """Checks a dict that an object is built from.

        Args:
            settings: the dict; None and built objects are allowed.
            path: path of its key.
            registry: registry of its type.
            given: arguments that the builder adds; None if it may add any argument that the config leaves out.
            extra: keys that the builder itself uses.
            default: type of a dict without `type`.
        """
        if not isinstance(settings, Mapping):
            if isinstance(settings, str | int | float | list | tuple):
                self.refuse(f'sets {path} to {shown(settings)}: give a dict with a `type`.')
            return
        kind = settings.get('type', default)
        if kind is None:
            self.refuse(f'has no `type` in {path}: name what to build there.')
        target = self.target(kind, path, registry, settings.get('_scope_'))
        taken = {'type', '_scope_', *extra}
        self.arguments({key: value for key, value in settings.items() if key not in taken}, path, target, given)

    def target(self, kind: object, path: str, registry: Registry, scope: str | None = None) -> Callable:
        """The class or function that a `type` names."""
        found, known, name = look_up(kind, registry, scope)
        if found is None and not isinstance(kind, str):
            self.refuse(f'sets {path}.type to {shown(kind)}: give the name of a class.')
        if found is None:
            close = near(kind, known, 0.6)
            hint = f'did you mean `{close}`?' if close else 'is it registered by a module of custom_imports?'
            self.refuse(f'names an unknown type: {kind} is not in the {name} registry ({path}): {hint}')
        return found

    def call(self, settings: object, path: str, target: Callable, given: Iterable[str] = ()) -> None:
        """Checks a dict of arguments of a fixed function or class."""
        if settings is not None:
            self.value(settings, path, dict)
            self.arguments(settings, path, target, given)

    def arguments(self, settings: Mapping, path: str, target: Callable, given: Iterable[str] | None = ()) -> None:
        """Checks settings against the arguments of the class or function that takes them."""
        named = getattr(target, 'forwards_to', target)
        takes, name, own = arguments_of(target), getattr(named, '__name__', str(named)), package_of(target)
        is_complete, given = given is not None, set(given or ())
        if further := self.forwarding.get(name):
            key, registry = further
            added = arguments_of(self.target(settings.get(key, takes.defaults[key]), f'{path}.{key}', registry))
            takes = Arguments(added.hints | takes.hints, added.defaults | takes.defaults)
            given.add('model')
        known = own in KNOWN_PACKAGES
        for key in settings:
            if not isinstance(key, str):
                self.refuse(f'has the key {shown(key)} in {path}: names of settings are texts.')
            if key not in takes.names and (not takes.any or (known and near(key, takes.names, ALIKE))):
                self.unknown(key, path, takes.names - given, name)
        missing = [key for key in takes.required if key not in settings and key not in given]
        if missing and is_complete and known and not takes.any:
            self.refuse(f'does not set {path}.{missing[0]}, which {name} needs.')
        for key, value in settings.items():
            if known:
                self.argument(value, f'{path}.{key}', key, target, takes)
            self.nested(value, f'{path}.{key}', key, target, takes.defaults.get(key))

    def argument(self, value: object, path: str, key: str, target: Callable, takes: Arguments) -> None:
        """Checks the type and range of one argument."""
        lineage = [owner.__name__ for owner in getattr(target, '__mro__', [target]) if hasattr(owner, '__name__')]
        if (stated := next((HINTS[name, key] for name in lineage if (name, key) in HINTS), EMPTY)) is not EMPTY:
            self.value(value, path, stated)
            return
        hint, default = takes.hints.get(key, EMPTY), takes.defaults.get(key)
        if not _has_range(hint):
            self.range(value, path, key)
        if hint is not EMPTY:
            self.value(value, path, hint, loose=package_of(target) not in ('tokenlabel', 'mmseg_ext'))
        elif isinstance(default, bool | int | float) and isinstance(value, str | Mapping):
            self.refuse(f'sets {path} to {shown(value)}: give {described(type(default))}.')
        elif isinstance(value, str) and key in RANGES and key not in OF_FILES:
            self.refuse(f'sets {path} to {shown(value)}: give {described(Annotated[float, RANGES[key]])}.')

    def range(self, value: object, path: str, key: str) -> None:
        """Checks a number, or each number of a list, against the range of settings with this name."""
        if key not in RANGES:
            return
        hint = Annotated[float, RANGES[key]]
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(n, int | float) and not isinstance(n, bool) and not fits(n, hint) for n in numbers):
            self.refuse(f'sets {path} to {shown(value)}: give {described(hint)}.')
        if key == 'ratio_range' and fits(value, tuple[float, ...]) and value not in Ascending():
            self.refuse(f'sets {path} to {shown(value)}: give the least first.')

    def nested(self, value: object, path: str, key: str, target: Callable, default: object) -> None:
        """Checks dicts inside an argument: objects to build, dicts that are read key by key, or lists of these."""
        if isinstance(value, list | tuple):
            for number, element in enumerate(value):
                self.nested(element, f'{path}.{number}', key, target, None)
        elif not isinstance(value, Mapping):
            if key in BUILT and isinstance(value, str | int | float):
                self.refuse(f'sets {path} to {shown(value)}: give a dict with a `type`.')
        elif method := self.handed_on.get((getattr(target, '__name__', ''), key)):
            getattr(self, method)(value, path)
        elif 'type' in value or key in ('init_cfg', 'pipeline', 'dataset'):
            registry = NESTED.get(key)
            found, *_ = look_up(value.get('type'), registry or MODELS, value.get('_scope_'))
            # an argument without an entry in NESTED may use a registry that is not known here
            if key not in LAYERS and (registry or found):
                self.built(value, path, registry or MODELS, None, OF_INITIALIZERS if key == 'init_cfg' else ())
        elif isinstance(default, Mapping) and default:
            self.read(value, path, set(default))
        elif key in ('test_cfg', 'train_cfg') and inspect.isclass(target):
            self.read(value, path, keys_read(target, key) | keys_read(sys.modules[target.__module__], 'cfg'))

    def read(self, settings: object, path: str, known: set[str]) -> None:
        """Checks a dict that is read key by key for misspelt keys."""
        if settings is None:
            return
        self.value(settings, path, dict)
        hints: dict[str, Any] = READ.get(path.split('.')[-1], {})
        for key, value in settings.items():
            self.misspelt(key, path, known | set(hints))
            if key in hints:
                self.value(value, f'{path}.{key}', hints[key], loose=True)

    def misspelt(self, key: object, path: str, known: Iterable[str]) -> None:
        """Refuses an unknown key that is similar to a known one."""
        if key not in known and isinstance(key, str) and near(key, known, ALIKE):
            self.unknown(key, path, known)

    def unknown(self, key: str, path: str, known: Iterable[str], owner: str = '') -> NoReturn:
        """Refuses an unknown key."""
        close = near(key, known, 0.6)
        named = ', '.join(sorted(name for name in known if not name.startswith('_')))
        hint = f'did you mean `{close}`?' if close else f'it takes {named}.'
        self.refuse(f'sets `{path}.{key}`, which {owner or "nothing"} {"does not take" if owner else "reads"}: {hint}')


def look_up(kind: object, registry: Registry, scope: str | None = None) -> tuple[Callable | None, list[str], str]:
    """The class or function that a `type` names, or None; the registered names; and the name of the registry."""
    with registry.switch_scope_and_registry(scope if isinstance(scope, str) else None) as chosen:
        name = f'{chosen.scope}::{chosen.name}'
        if not isinstance(kind, str):
            return (kind if callable(kind) else None), [], name
        try:
            found = chosen.get(kind)
            found = found if callable(found) else None
        except (ImportError, AttributeError, RuntimeError, TypeError, ValueError):
            found = None
        known, node = [], chosen
        while node is not None:
            known += node.module_dict
            node = node.parent
    return found, known, name


def near(key: str, known: Iterable[str], cutoff: float) -> str | None:
    """The name that `key` most likely misspells, if any."""
    matches = difflib.get_close_matches(key, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def package_of(target: Callable) -> str:
    """The package that defines a class or function."""
    return str(getattr(target, '__module__', '')).split('.')[0]


def _has_range(hint: object) -> bool:
    marks = getattr(hint, '__metadata__', ())
    return any(isinstance(mark, Range) for mark in marks) or any(_has_range(part) for part in get_args(hint))
