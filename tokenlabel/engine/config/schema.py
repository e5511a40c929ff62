"""Checks every key, type and range of a config before anything is built from it.

Types are looked up in their registry, and their settings are compared with names, type hints and ranges of the
constructor's arguments. Settings of the user's own classes are compared by name only. Dicts that are read key by key
are compared with the keys in the source code that reads them.
"""

import inspect
import sys
from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar

import timm
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
    TRANSFORMS,
    VISUALIZERS,
)
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.utils.dl_utils import set_multi_processing
from timm.models import PretrainedCfg
from torch import nn
from torch.utils.data import DataLoader

from tokenlabel.argument_checks import NonNegative, described, shown
from tokenlabel.engine.config.parts import Parts, look_up
from tokenlabel.engine.config.ranges import RANGES, READ, TOP
from tokenlabel.engine.config.signatures import EMPTY, Arguments, arguments_of, keys_read
from tokenlabel.engine.resuming.seeded_samples import ENDLESS, never_ends
from tokenlabel.labels.annotator import load_annotator
from tokenlabel.objective.loss import TokenLabelLoss

# Settings that must be set together: all of a line, or none.
TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
HOOK_NAMES = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'visualization')


def check_config(config: Config, path: object = None) -> None:
    """Checks the settings of a run; missing ones are left to the Runner.

    Call `register_imports` first, which imports `custom_imports` and sets the default scope.

    Args:
        config: as read from its file, with the options of the command line.
        path: the file, for messages.

    Raises:
        UserError: a key that nothing reads, an unknown type, a value of another type or out of its range; the sentence
            names the key's path.
    """
    _Schema(config, f'Config {path or config.filename or ""}'.strip()).check()


class _Schema(Parts):
    """Checks of the top-level keys of a config."""

    handed_on: ClassVar[dict[tuple[str, str], str]] = {
        ('TokenLabelClassifier', 'network'): 'network',
        ('TokenLabelClassifier', 'loss'): 'loss',
        ('AnnotatorTokenLabels', 'annotator'): 'annotator',
    }

    def __init__(self, config: Config, where: str) -> None:
        super().__init__(where)
        self.config = config

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
            self.ends(stage)
            self.evaluator(config.get(f'{stage}_evaluator'), f'{stage}_evaluator')
        self.part('model', MODELS)
        self.part('tta_model', MODELS, given=('module',))
        for key in ('test_pipeline', 'tta_pipeline'):
            self.each(config.get(key), key, partial(self.built, registry=TRANSFORMS))
        self.part('model_wrapper_cfg', MODEL_WRAPPERS, given=('module',))
        self.optim_wrapper(config.get('optim_wrapper'), 'optim_wrapper')
        self.schedulers(config.get('param_scheduler'), 'param_scheduler')
        self.hooks()
        self.part('log_processor', LOG_PROCESSORS, default='LogProcessor')
        self.part('visualizer', VISUALIZERS, extra=('name', 'save_dir'), default='Visualizer')
        self.environment(config.get('env_cfg'), 'env_cfg')
        self.scaling(config.get('auto_scale_lr'), 'auto_scale_lr')
        self.call(config.get('randomness'), 'randomness', Runner.set_randomness, given=('self',))

    def part(self, key: str, *args, **kwargs) -> None:
        self.built(self.config.get(key), key, *args, **kwargs)

    def loader(self, settings: object, path: str) -> None:
        if settings is None or isinstance(settings, DataLoader):
            return
        self.value(settings, path, dict)
        settings = dict(settings)
        needed = ['dataset'] if settings.get('batch_sampler') else ['dataset', 'sampler', 'batch_size']
        if absent := [key for key in needed if settings.get(key) is None]:
            self.refuse(f'does not set {path}.{absent[0]}, which a loader needs.')
        self.built(settings.pop('dataset'), f'{path}.dataset', DATASETS)
        self.built(settings.pop('sampler', None), f'{path}.sampler', DATA_SAMPLERS, ('dataset', 'seed'))
        given = ('sampler', 'batch_size')
        self.built(settings.pop('batch_sampler', None), f'{path}.batch_sampler', DATA_SAMPLERS, given)
        for key in ('collate_fn', 'worker_init_fn'):
            value = settings.pop(key, None)
            if not callable(value):
                self.value(value, f'{path}.{key}', dict | None)
            if isinstance(value, Mapping):
                self.target(value.get('type'), f'{path}.{key}', FUNCTIONS)
        self.range(settings.pop('num_batch_per_epoch', None), f'{path}.num_batch_per_epoch', 'num_batch_per_epoch')
        self.value(settings.pop('disable_subprocess_warning', False), f'{path}.disable_subprocess_warning', bool)
        self.arguments(settings, path, DataLoader, given=('dataset',))

    def loop(self, settings: object, path: str) -> None:
        if settings is None:
            return
        self.value(settings, path, dict)
        lengths = [settings[key] for key in ('max_iters', 'max_epochs') if key in settings]
        if lengths and not any(lengths):
            self.refuse(f'sets no length of training: set {path}.max_iters or max_epochs to 1 or more.')
        extra, default = (), {'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop'}.get(path)
        if path == 'train_cfg' and 'type' not in settings:
            if 'by_epoch' not in settings:
                self.refuse("has neither `type` nor `by_epoch` in train_cfg: set type='IterBasedTrainLoop'.")
            default = 'EpochBasedTrainLoop' if settings['by_epoch'] else 'IterBasedTrainLoop'
            extra = ('by_epoch',)
        self.built(settings, path, LOOPS, ('runner', 'dataloader', 'evaluator'), extra, default)

    def ends(self, stage: str) -> None:
        """Refuses an endless sampler in a loop that waits for the end of an epoch."""
        loader, loop = self.config.get(f'{stage}_dataloader'), self.config.get(f'{stage}_cfg')
        if not isinstance(loader, Mapping) or not isinstance(loop, Mapping):
            return
        sampler, *_ = look_up((loader.get('sampler') or {}).get('type'), DATA_SAMPLERS)
        default = 'IterBasedTrainLoop' if not loop.get('by_epoch') else 'EpochBasedTrainLoop'
        kind, *_ = look_up(loop.get('type', default), LOOPS)
        waits = stage != 'train' or (inspect.isclass(kind) and issubclass(kind, EpochBasedTrainLoop))
        if waits and inspect.isclass(sampler) and issubclass(sampler, ENDLESS):
            self.refuse(f'never reaches the end of an epoch: {never_ends(stage)}')

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
        optimizer = settings.get('optimizer')
        if optimizer is None:
            if 'constructor' not in settings:
                self.refuse(f'does not set {path}.optimizer: give a dict with a `type`.')
            return  # several optimizers, which the constructor defines
        extra = ('optimizer', 'constructor', 'paramwise_cfg')
        self.built(settings, path, OPTIM_WRAPPERS, ('optimizer',), extra, 'OptimWrapper')
        kind, *_ = look_up(optimizer.get('type') if isinstance(optimizer, Mapping) else None, OPTIMIZERS)
        # the first argument takes the parameters, whatever its name
        self.built(optimizer, f'{path}.optimizer', OPTIMIZERS, list(arguments_of(kind).hints)[:1] if kind else ())
        if settings.get('clip_grad') is not None:
            self.clipping(settings['clip_grad'], f'{path}.clip_grad')
        if settings.get('paramwise_cfg') is not None:
            self.paramwise(settings['paramwise_cfg'], f'{path}.paramwise_cfg', keys_read(reader, 'paramwise_cfg'))

    def clipping(self, settings: object, path: str) -> None:
        """Checks arguments of torch's gradient clipping, by norm or by value."""
        self.read(settings, path, set(READ['clip_grad']))
        clips = nn.utils.clip_grad_value_ if settings.get('type') == 'value' else nn.utils.clip_grad_norm_
        if settings:
            given = {key: value for key, value in settings.items() if key != 'type'}
            self.arguments(given, path, clips, given=('parameters',))

    def paramwise(self, settings: object, path: str, known: set[str]) -> None:
        """Checks settings of parameter groups; settings of a custom key go into the optimizer's group unchanged."""
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
            for key, value in settings.items():  # one per optimizer
                self.schedulers(value, f'{path}.{key}')
        elif settings is not None:
            self.scheduler(settings, path)

    def scheduler(self, settings: object, path: str) -> None:
        extra = ('convert_to_iter_based', 'epoch_length')
        self.built(settings, path, PARAM_SCHEDULERS, ('optimizer', 'param_name'), extra)
        if isinstance(settings, Mapping):
            self.value(settings.get('convert_to_iter_based', False), f'{path}.convert_to_iter_based', bool)
            begin, end = settings.get('begin', 0), settings.get('end')
            if isinstance(begin, int | float) and isinstance(end, int | float) and end <= begin:
                self.refuse(f'has a schedule that begins at {begin} and ends at {end}: correct {path}.')

    def hooks(self) -> None:
        hook = partial(self.built, registry=HOOKS, extra=('priority',))
        if (named := self.config.get('default_hooks')) is not None:
            self.value(named, 'default_hooks', dict)
            for key, settings in named.items():
                if isinstance(settings, Mapping) and 'type' not in settings:
                    self.misspelt(key, 'default_hooks', HOOK_NAMES)
                hook(settings, f'default_hooks.{key}')
        self.each(self.config.get('custom_hooks'), 'custom_hooks', hook)

    def environment(self, settings: object, path: str) -> None:
        self.read(settings, path, keys_read(Runner, path))
        settings = settings or {}
        self.call(settings.get('mp_cfg'), f'{path}.mp_cfg', set_multi_processing, given=('distributed',))
        self.call(settings.get('dist_cfg'), f'{path}.dist_cfg', dist.init_dist, given=('launcher',))

    def scaling(self, settings: object, path: str) -> None:
        self.read(settings, path, keys_read(Runner, path))
        if settings and settings.get('enable') and settings.get('base_batch_size') is None:
            self.refuse(f'sets {path}.enable without base_batch_size, the global batch that lr is tuned for: set it.')

    def network(self, settings: Mapping, path: str) -> None:
        """Checks arguments of `timm.create_model`, which passes them to the class of the network."""
        self.value(settings.get('model_name'), f'{path}.model_name', str)
        known = _network_arguments(settings['model_name'])
        for key, value in settings.items():
            self.misspelt(key, path, known.names)
            hint, place = known.hints.get(key, EMPTY), f'{path}.{key}'
            if key in RANGES and isinstance(value, str | Mapping):
                self.refuse(f'sets {place} to {shown(value)}: give {described(Annotated[float, RANGES[key]])}.')
            if hint is not EMPTY:
                self.value(value, place, hint, loose=True)
            if key != 'num_classes':
                self.range(value, place, key)
        self.call(settings.get('pretrained_cfg_overlay'), f'{path}.pretrained_cfg_overlay', PretrainedCfg)

    def annotator(self, settings: Mapping, path: str) -> None:
        self.call(settings, path, load_annotator)

    def loss(self, settings: Mapping, path: str) -> None:
        self.call(settings, path, TokenLabelLoss)
        if settings.get('dense_weight', 1) == settings.get('cls_weight', 1) == 0:
            self.refuse(f'sets both weights of {path} to 0, so that nothing is learned: set one of them.')


def _network_arguments(name: str) -> Arguments:
    """Arguments of a timm architecture: those of all classes in its module, with type hints for LV-ViT only."""
    known = Arguments(dict.fromkeys(('mix_token', 'token_score_weight', 'features_only', 'out_indices'), EMPTY))
    known.hints |= arguments_of(timm.create_model).hints
    architecture = str(name).split('.')[0]
    if timm.is_model(architecture):
        module = sys.modules[timm.model_entrypoint(architecture).__module__]
        for found in vars(module).values():
            if inspect.isclass(found) and issubclass(found, nn.Module):
                hints = arguments_of(found).hints
                known.hints = dict.fromkeys(hints, EMPTY) | known.hints
                if found.__name__ == 'LVViT':
                    known.hints |= hints
    return known
