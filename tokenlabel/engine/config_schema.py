"""Checks a config before anything is built from it: every key, type and range, against what will take it.

What is built from a dict is looked up in its registry, and its settings are compared with the constructor's arguments:
their names, their type hints, their ranges. Settings of a person's own classes are compared by name alone. Dicts that
are read key by key are compared with the keys that the source of their reader names.
"""

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, NoReturn

import timm
import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    FUNCTIONS,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODEL_WRAPPERS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
    WEIGHT_INITIALIZERS,
    Registry,
)
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from timm.models import PretrainedCfg
from torch import nn

from tokenlabel.arguments import NonNegative, Range, described, fits, shown
from tokenlabel.engine.config_ranges import HINTS, RANGES, READ, TOP
from tokenlabel.engine.config_signatures import EMPTY, Arguments, arguments_of, keys_read
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import load_annotator
from tokenlabel.losses import TokenLabelLoss

# Packages whose hints and names of arguments mean what they say; other classes are a person's own.
KNOWN_PACKAGES = {'tokenlabel', 'mmseg_ext', 'mmengine', 'mmseg', 'mmcv', 'timm', 'torch'}
# How alike two names are of which one is taken for a misspelling of the other.
ALIKE = 0.8
# Settings that make a whole with others: all of a line, or none.
TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
# In which registry an argument of this name looks its type up; MODELS otherwise.
NESTED = {
    'init_cfg': WEIGHT_INITIALIZERS,
    'pipeline': TRANSFORMS,
    'transforms': TRANSFORMS,
    'dataset': DATASETS,
    'datasets': DATASETS,
    'targets': TASK_UTILS,
    'vis_backends': VISBACKENDS,
    'metrics': METRICS,
}
# Layers of mmcv take settings beside the constructor's; what comes with them is checked when they are built.
LAYERS = {'norm_cfg', 'act_cfg', 'conv_cfg', 'upsample_cfg', 'padding_cfg', 'plugins', 'override', 'dcn'}
HOOK_NAMES = (
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
    'ema',
    'visualization',
)


def check_config(config: Config, path: object = None) -> None:
    """Checks what a config says of a run; what it does not say is left to the Runner.

    What `custom_imports` registers has to be registered, and the default scope to be set (`register_imports`).

    Args:
        config: as read from its file, with the options of the command line.
        path: the file, for messages.

    Raises:
        UserError: a key that nothing reads, an unknown type, a value of another type or out of its range; the sentence
            names the key's path.
    """
    _Checker(config, f'Config {path or config.filename or ""}'.strip()).check()


class _Checker:
    """Methods take a value and its key's path, and raise where it cannot be."""

    def __init__(self, config: Config, where: str) -> None:
        self.config, self.where = config, where

    def check(self) -> None:
        config = self.config
        if not isinstance(config.get('model'), Mapping | nn.Module):
            self.refuse('needs a dict `model`, with a `type`.')
        for key, hint in TOP.items():
            if key in config:
                self.value(config[key], key, hint)
        for group in TOGETHER:
            absent = [key for key in group if config.get(key) is None]
            if 0 < len(absent) < len(group):
                self.refuse(f'lacks {" and ".join(absent)}: set all of {", ".join(group)}, or none.')
        for stage in ('train', 'val', 'test'):
            self.loader(config.get(f'{stage}_dataloader'), f'{stage}_dataloader')
            self.loop(config.get(f'{stage}_cfg'), f'{stage}_cfg')
            self.evaluator(config.get(f'{stage}_evaluator'), f'{stage}_evaluator')
            self.each(config.get(f'{stage}_pipeline'), f'{stage}_pipeline', partial(self.built, registry=TRANSFORMS))
        self.built(config['model'], 'model', MODELS)
        self.built(config.get('tta_model'), 'tta_model', MODELS, given=('module',), type_is_due=False)
        self.each(config.get('tta_pipeline'), 'tta_pipeline', partial(self.built, registry=TRANSFORMS))
        self.built(config.get('model_wrapper_cfg'), 'model_wrapper_cfg', MODEL_WRAPPERS, given=('module',))
        self.optim_wrapper(config.get('optim_wrapper'), 'optim_wrapper')
        self.schedulers(config.get('param_scheduler'), 'param_scheduler')
        self.hooks()
        self.built(config.get('log_processor'), 'log_processor', LOG_PROCESSORS, default='LogProcessor')
        self.built(
            config.get('visualizer'), 'visualizer', VISUALIZERS, default='Visualizer', extra=('name', 'save_dir')
        )
        self.environment()
        self.read(config.get('auto_scale_lr'), 'auto_scale_lr', keys_read(Runner, 'auto_scale_lr'))
        scale = config.get('auto_scale_lr') or {}
        if scale.get('enable') and not scale.get('base_batch_size'):
            self.refuse('sets auto_scale_lr.enable without base_batch_size, the batch that the learning rate is for.')
        self.call(config.get('randomness'), 'randomness', Runner.set_randomness, given=('self',))

    def refuse(self, what: str) -> NoReturn:
        raise UserError(f'{self.where} {what}')

    def value(self, value: object, path: str, hint: object, loose: bool = False) -> None:
        if not fits(value, hint, loose):
            self.refuse(f'sets {path} to {shown(value)}: give {described(hint)}.')

    def each(self, values: object, path: str, check: Callable[[object, str], None]) -> None:
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
        given: Iterable[str] = (),
        extra: Iterable[str] = (),
        default: str | None = None,
        type_is_due: bool = True,
    ) -> None:
        """A dict that something is built from.

        Args:
            settings: None and what is built already is fine.
            path: of its key.
            registry: where its type is looked up.
            given: arguments that the builder adds.
            extra: keys that the builder takes for itself.
            default: its type where it names none.
            type_is_due: whether one has to be named where there is no default.
        """
        if not isinstance(settings, Mapping):
            if settings is not None and isinstance(settings, str | int | float | list | tuple):
                self.refuse(f'sets {path} to {shown(settings)}: give a dict with a `type`.')
            return
        kind = settings.get('type', default)
        if kind is None and type_is_due:
            self.refuse(f'has no `type` in {path}, which says what to build{_hint(path.split(".")[-1], path)}.')
        if target := self.target(kind, path, registry, settings.get('_scope_')):
            taken = {'type', '_scope_', *extra}
            rest = {key: value for key, value in settings.items() if key not in taken}
            self.arguments(rest, path, target, given)

    def target(self, kind: object, path: str, registry: Registry, scope: str | None = None) -> Callable | None:
        """What a `type` stands for."""
        if not isinstance(kind, str):
            if kind is not None and not callable(kind):
                self.refuse(f'sets {path}.type to {shown(kind)}: give the name of a class.')
            return kind
        found, known, name = _look_up(kind, registry, scope)
        if found is None:
            close = difflib.get_close_matches(kind, known, n=1, cutoff=0.6)
            hint = f'did you mean `{close[0]}`?' if close else 'is it registered by a module of custom_imports?'
            self.refuse(f'names an unknown type in {path}: {kind} is not in the {name} registry; {hint}')
        return found

    def call(self, settings: object, path: str, target: Callable, given: Iterable[str] = ()) -> None:
        """A dict of the arguments of a function or class that is always the same."""
        if settings is not None:
            self.value(settings, path, dict)
            self.arguments(settings, path, target, given)

    def arguments(self, settings: Mapping, path: str, target: Callable, given: Iterable[str] = ()) -> None:
        """Settings against the arguments of what takes them."""
        takes, name = arguments_of(target), getattr(target, '__name__', str(target))
        own = _is_known(target)
        for key in settings:
            if not isinstance(key, str):
                self.refuse(f'has the key {shown(key)} in {path}: names of settings are texts.')
            is_alike = takes.any and own and _near(key, takes.names, ALIKE)
            if key not in takes.names and (not takes.any or is_alike):
                self.unknown(key, path, takes.names - set(given), name)
        missing = [key for key in takes.required if key not in settings and key not in given]
        if missing and own and not takes.any:
            self.refuse(f'does not set {path}.{missing[0]}, which {name} needs.')
        for key, value in settings.items():
            place = f'{path}.{key}'
            if own:
                self.argument(value, place, key, target, takes)
            self.nested(value, place, key, target, takes.defaults.get(key))

    def argument(self, value: object, path: str, key: str, target: Callable, takes: Arguments) -> None:
        """The type and range of one argument."""
        lineage = [owner.__name__ for owner in getattr(target, '__mro__', [target])]
        if hint := next((HINTS[name, key] for name in lineage if (name, key) in HINTS), None):
            self.value(value, path, hint, loose=True)
            return
        hint = takes.hints.get(key, EMPTY)
        ours = _package(target) in ('tokenlabel', 'mmseg_ext')
        if hint is not EMPTY:
            self.value(value, path, hint, loose=not ours)
        elif isinstance(default := takes.defaults.get(key), bool | int | float) and isinstance(value, str | Mapping):
            self.refuse(f'sets {path} to {shown(value)}: give {described(type(default))}.')
        if isinstance(value, list | tuple) or not _has_range(hint):
            self.range(value, path, key)

    def range(self, value: object, path: str, key: str) -> None:
        if limits := RANGES.get(key):
            for number in value if isinstance(value, list | tuple) else [value]:
                if (
                    isinstance(number, int | float)
                    and not fits(number, Annotated[float, limits])
                    and number is not True
                ):
                    self.refuse(f'sets {path} to {shown(value)}: give {described(Annotated[float, limits])}.')
            if key == 'ratio_range' and isinstance(value, list | tuple) and list(value) != sorted(value):
                self.refuse(f'sets {path} to {shown(value)}: give the least first.')

    def nested(self, value: object, path: str, key: str, target: Callable, default: object) -> None:
        """What is inside an argument: something to build, a dict that is read key by key, or a list of these."""
        name = getattr(target, '__name__', '')
        if isinstance(value, list | tuple):
            for number, element in enumerate(value):
                self.nested(element, f'{path}.{number}', key, target, None)
        elif not isinstance(value, Mapping):
            if key in ('pipeline', 'transforms') and isinstance(value, str | int | float):
                self.refuse(f'sets {path} to {shown(value)}: give a dict with a `type`.')
        elif (name, key) in SETTINGS:
            SETTINGS[name, key](self, value, path)
        elif 'type' in value:
            if key in LAYERS:
                return
            registry = NESTED.get(key)
            extra = ('ema', 'override', 'layer') if key == 'init_cfg' else ()
            # under a name of no certain registry it may be looked up in one that is not known here
            if registry or _look_up(value['type'], MODELS, value.get('_scope_'))[0]:
                default_type = {'data_preprocessor': 'SegDataPreProcessor'}.get(key)
                self.built(
                    value,
                    path,
                    registry or MODELS,
                    given=_everything(value, registry),
                    extra=extra,
                    default=default_type,
                )
        elif isinstance(default, Mapping) and default:
            self.read(value, path, set(default))
        elif key in ('test_cfg', 'train_cfg') and inspect.isclass(target):
            self.read(value, path, keys_read(target, key) | keys_read(sys.modules[target.__module__], 'cfg'))

    def read(self, settings: object, path: str, known: set[str]) -> None:
        """A dict that is read key by key: a key that nearly is one of those is a mistake."""
        if settings is None:
            return
        self.value(settings, path, dict)
        hints = READ.get(path.split('.')[-1], {})
        for key, value in settings.items():
            self.misspelt(key, path, known | set(hints))
            if key in hints:
                self.value(value, f'{path}.{key}', hints[key], loose=True)

    def misspelt(self, key: object, path: str, known: Iterable[str]) -> None:
        if key not in known and isinstance(key, str) and _near(key, known, ALIKE):
            self.unknown(key, path, known, '')

    def unknown(self, key: str, path: str, known: Iterable[str], owner: str) -> NoReturn:
        known = sorted(name for name in known if not name.startswith('_'))
        who = f'{owner} does not take' if owner else 'nothing reads'
        hint = f'did you mean `{close}`?' if (close := _near(key, known, 0.6)) else f'it takes {", ".join(known)}.'
        self.refuse(f'sets `{path}.{key}`, which {who}: {hint}')

    def loader(self, settings: object, path: str) -> None:
        if settings is None or isinstance(settings, torch.utils.data.DataLoader):
            return
        self.value(settings, path, dict)
        settings = dict(settings)
        for key in ('dataset', 'sampler'):
            if settings.get(key) is None and settings.get('batch_sampler') is None:
                self.refuse(f'does not set {path}.{key}: give a dict with a `type`.')
        if settings.get('batch_size') is None and settings.get('batch_sampler') is None:
            self.refuse(f'does not set {path}.batch_size: give a whole number from 1 on.')
        self.built(settings.pop('dataset', None), f'{path}.dataset', DATASETS)
        self.built(settings.pop('sampler', None), f'{path}.sampler', DATA_SAMPLERS, given=('dataset', 'seed'))
        given = ('sampler', 'batch_size')
        self.built(settings.pop('batch_sampler', None), f'{path}.batch_sampler', DATA_SAMPLERS, given=given)
        for key in ('collate_fn', 'worker_init_fn'):
            value = settings.pop(key, None)
            self.value(value, f'{path}.{key}', dict | Callable | None)
            if isinstance(value, Mapping):
                self.target(value.get('type'), f'{path}.{key}', FUNCTIONS)
        for key in ('num_batch_per_epoch', 'disable_subprocess_warning'):
            self.range(settings.pop(key, None), f'{path}.{key}', key)
        self.arguments(settings, path, torch.utils.data.DataLoader, given=('dataset',))

    def loop(self, settings: object, path: str) -> None:
        if settings is None:
            return
        self.value(settings, path, dict)
        extra, default = (), {'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop'}.get(path)
        if path == 'train_cfg' and 'type' not in settings:
            if 'by_epoch' not in settings:
                self.refuse("has neither `type` nor `by_epoch` in train_cfg: set type='IterBasedTrainLoop'.")
            default = 'EpochBasedTrainLoop' if settings['by_epoch'] else 'IterBasedTrainLoop'
            extra = ('by_epoch',)
        self.built(settings, path, LOOPS, ('runner', 'dataloader', 'evaluator'), extra, default)

    def evaluator(self, settings: object, path: str) -> None:
        if isinstance(settings, list | tuple):
            self.each(settings, path, partial(self.built, registry=METRICS))
        elif isinstance(settings, Mapping) and 'metrics' in settings:
            self.built(settings, path, EVALUATOR, default='Evaluator')
        else:
            self.built(settings, path, METRICS)

    def optim_wrapper(self, settings: object, path: str) -> None:
        if not isinstance(settings, Mapping):
            self.built(settings, path, OPTIM_WRAPPERS)
            return
        constructor = settings.get('constructor', 'DefaultOptimWrapperConstructor')
        reader = self.target(constructor, f'{path}.constructor', OPTIM_WRAPPER_CONSTRUCTORS)
        if settings.get('optimizer') is None:
            if 'constructor' not in settings:
                self.refuse(f'does not set {path}.optimizer: give a dict with a `type`.')
            return  # of several optimizers, as its constructor has them
        self.built(
            settings,
            path,
            OPTIM_WRAPPERS,
            ('optimizer',),
            ('optimizer', 'constructor', 'paramwise_cfg'),
            'OptimWrapper',
        )
        parameters = _first_argument(settings['optimizer'])
        self.built(settings['optimizer'], f'{path}.optimizer', OPTIMIZERS, parameters)
        if clip := settings.get('clip_grad'):
            self.read(clip, f'{path}.clip_grad', set(READ['clip_grad']))
        if (groups := settings.get('paramwise_cfg')) is not None:
            self.paramwise(groups, f'{path}.paramwise_cfg', keys_read(reader, 'paramwise_cfg'))

    def paramwise(self, settings: object, path: str, known: set[str]) -> None:
        """Settings of groups of parameters; those of one key are put into the optimizer's group as they are."""
        self.read(settings, path, known)
        for key, value in settings.items():
            if isinstance(key, str) and key.endswith('_mult'):
                self.value(value, f'{path}.{key}', NonNegative | None)
        for pattern, multipliers in (settings.get('custom_keys') or {}).items():
            place = f'{path}.custom_keys.{pattern}'
            self.value(pattern, f'{path}.custom_keys', str)
            self.value(multipliers, place, dict)
            for key, value in multipliers.items():
                self.misspelt(key, place, {'lr_mult', 'decay_mult', 'lr', 'weight_decay', 'betas', 'eps', 'momentum'})
                if key in ('lr_mult', 'decay_mult'):
                    self.value(value, f'{place}.{key}', NonNegative)

    def schedulers(self, settings: object, path: str) -> None:
        if isinstance(settings, list | tuple):
            self.each(settings, path, self.scheduler)
        elif isinstance(settings, Mapping) and settings and 'type' not in settings:
            for key, value in settings.items():  # of several optimizers
                self.schedulers(value, f'{path}.{key}')
        elif settings:
            self.scheduler(settings, path)

    def scheduler(self, settings: object, path: str) -> None:
        given, extra = ('optimizer', 'param_name'), ('convert_to_iter_based', 'epoch_length')
        self.built(settings, path, PARAM_SCHEDULERS, given, extra)
        if isinstance(settings, Mapping):
            self.value(settings.get('convert_to_iter_based', False), f'{path}.convert_to_iter_based', bool)
            begin, end = settings.get('begin', 0), settings.get('end')
            if end is not None and end <= begin:
                self.refuse(
                    f'has a schedule that ends at {end} and begins at {begin}, in {path}: correct `begin` or `end`.'
                )

    def hooks(self) -> None:
        named = self.config.get('default_hooks')
        if named is not None:
            self.value(named, 'default_hooks', dict)
            for key, settings in named.items():
                if isinstance(settings, Mapping) and 'type' not in settings:
                    self.misspelt(key, 'default_hooks', HOOK_NAMES)
                self.built(settings, f'default_hooks.{key}', HOOKS, extra=('priority',))
        self.each(
            self.config.get('custom_hooks'), 'custom_hooks', partial(self.built, registry=HOOKS, extra=('priority',))
        )

    def environment(self) -> None:
        settings = self.config.get('env_cfg')
        self.read(settings, 'env_cfg', keys_read(Runner, 'env_cfg'))
        settings = settings or {}
        self.call(settings.get('mp_cfg'), 'env_cfg.mp_cfg', set_multi_processing, given=('distributed',))
        self.call(settings.get('dist_cfg'), 'env_cfg.dist_cfg', dist.init_dist, given=('launcher',))

    def network(self, settings: Mapping, path: str) -> None:
        """Arguments of `timm.create_model`, which hands them on to a class that only it knows."""
        name = settings.get('model_name')
        self.value(name, f'{path}.model_name', str)
        known = _network_arguments(name)
        for key, value in settings.items():
            self.misspelt(key, path, known.names)
            hint, place = known.hints.get(key, EMPTY), f'{path}.{key}'
            if key in RANGES and isinstance(value, str | Mapping):
                self.refuse(f'sets {place} to {shown(value)}: give {described(Annotated[float, RANGES[key]])}.')
            if hint is not EMPTY:
                self.value(value, place, hint, loose=True)
            self.range(value, place, key)
        self.call(settings.get('pretrained_cfg_overlay'), f'{path}.pretrained_cfg_overlay', PretrainedCfg)

    def arguments_of_annotator(self, settings: Mapping, path: str) -> None:
        self.call(settings, path, load_annotator)

    def arguments_of_loss(self, settings: Mapping, path: str) -> None:
        self.call(settings, path, TokenLabelLoss)


# Arguments that are handed on to something else: (class, argument) -> how they are checked.
SETTINGS: dict[tuple[str, str], Callable[[_Checker, Mapping, str], None]] = {
    ('TokenLabelClassifier', 'network'): _Checker.network,
    ('TokenLabelClassifier', 'loss'): _Checker.arguments_of_loss,
    ('AnnotatorTokenLabels', 'annotator'): _Checker.arguments_of_annotator,
}


def _look_up(kind: object, registry: Registry, scope: str | None) -> tuple[Callable | None, list[str], str]:
    """What is registered under a name, the names that are, and the registry's own."""
    with registry.switch_scope_and_registry(scope) as chosen:
        name = f'{chosen.scope}::{chosen.name}'
        if not isinstance(kind, str):
            return (kind if callable(kind) else None), [], name
        try:
            found = chosen.get(kind)
        except (ImportError, AttributeError, RuntimeError, TypeError, ValueError):
            found = None
        known, node = [], chosen
        while node is not None:
            known += node.module_dict
            node = node.parent
    return found, known, name


def _everything(settings: Mapping, registry: Registry | None) -> Iterable[str]:
    """Names of all arguments of a part: whatever holds it may add those that the config leaves out."""
    found = _look_up(settings['type'], registry or MODELS, settings.get('_scope_'))[0]
    return arguments_of(found).names if found else ()


def _first_argument(settings: object) -> tuple[str, ...]:
    """The argument that an optimizer takes its parameters by."""
    kind = settings.get('type') if isinstance(settings, Mapping) else None
    found = _look_up(kind, OPTIMIZERS, None)[0] if kind else None
    return tuple(list(arguments_of(found).hints)[:1]) if found else ()


def _network_arguments(name: str) -> Arguments:
    """What an architecture of timm takes, as far as its module tells; hints only where it is of one class."""
    known = Arguments()
    known.hints = dict.fromkeys(('mix_token', 'token_score_weight', 'features_only', 'out_indices'), EMPTY)
    known.hints |= arguments_of(timm.create_model).hints
    architecture = name.split('.')[0]
    if timm.is_model(architecture):
        module = sys.modules[timm.model_entrypoint(architecture).__module__]
        for found in vars(module).values():
            if inspect.isclass(found) and issubclass(found, nn.Module):
                hints = arguments_of(found).hints
                known.hints |= {key: known.hints.get(key, EMPTY) for key in hints}
                if found.__name__ == 'LVViT':
                    known.hints |= hints
    return known


def _has_range(hint: object) -> bool:
    return any(isinstance(mark, Range) for mark in getattr(hint, '__metadata__', ()))


def _package(target: Callable) -> str:
    return str(getattr(target, '__module__', '')).split('.')[0]


def _is_known(target: Callable) -> bool:
    return _package(target) in KNOWN_PACKAGES


def _near(key: str, known: Iterable[str], cutoff: float) -> str | None:
    """The name that `key` most likely misspells, if any."""
    matches = difflib.get_close_matches(key, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def _hint(key: str, path: str) -> str:
    close = _near(key, HOOK_NAMES, 0.6) if path.startswith('default_hooks.') and key not in HOOK_NAMES else None
    return f'; did you mean default_hooks.{close}?' if close else ''
