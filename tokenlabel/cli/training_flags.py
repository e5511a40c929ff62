"""Short flags for the config entries that are changed most often. Each is equivalent to a `--cfg-options` entry."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tokenlabel.cli.parser import batch_size, positive, positive_real, whole
from tokenlabel.engine.config.run_config import load_config
from tokenlabel.errors import UserError

LOADERS = {'train': 'train', 'val': 'val', 'test': 'val'}  # dataloader -> its folder below --data
OF_TRAINING = ('epochs', 'iterations', 'batch_size', 'lr', 'data', 'labels', 'model', 'seed')


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `train`."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--epochs', type=positive, metavar='N', help='length in epochs; schedules are adapted')
    length.add_argument('--iterations', type=positive, metavar='N', help='length in iterations; schedules are adapted')
    parser.add_argument('--batch-size', type=batch_size, metavar='N', help='images per process')
    parser.add_argument('--lr', type=positive_real, help="learning rate at the config's original batch size")
    parser.add_argument(
        '--data', type=Path, metavar='DIR', help='data folder: DIR/train and DIR/val (pretraining), or data_root'
    )
    parser.add_argument('--labels', type=Path, metavar='STORE', help='label store of the training images')
    parser.add_argument('--model', metavar='NAME', help='network to pretrain, a model name of timm')
    parser.add_argument('--seed', type=whole(0, 2**32 - 1), metavar='N', help='random seed')


def add_test_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `test`."""
    parser.add_argument('--batch-size', type=batch_size, metavar='N', help='images per process')
    parser.add_argument('--data', type=Path, metavar='DIR', help='data folder: DIR/val (pretraining), or data_root')


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """`--cfg-options`, extended by the entries of the flags of `train`.

    Raises:
        UserError: a flag does not apply to the config, or `--cfg-options` sets the same entry.
    """
    flags = {name: value for name in OF_TRAINING if (value := getattr(args, name)) is not None}
    if not flags:
        return args.cfg_options or {}
    config = load_config(args.config)
    options: dict[str, Any] = {}
    for name, value in flags.items():
        options |= SETTINGS[name](config, value)
    return _joined(options, flags, args.cfg_options)


def test_options(args: argparse.Namespace) -> dict[str, Any]:
    """`--cfg-options`, extended by the entries of the flags of `test`.

    Raises:
        UserError: as `training_options`.
    """
    options = {}
    if args.data is not None:
        options |= _data(load_config(args.config), args.data, ['test'])
    if args.batch_size is not None:
        options['test_dataloader.batch_size'] = args.batch_size
    return _joined(options, ('data', 'batch_size'), args.cfg_options)


def _joined(options: dict[str, Any], flags: Sequence[str] | Mapping, others: dict[str, Any] | None) -> dict[str, Any]:
    for key in options:
        if twice := [
            other for other in others or {} if f'{other}.'.startswith(f'{key}.') or key.startswith(f'{other}.')
        ]:
            shown = ', '.join(f'--{name.replace("_", "-")}' for name in flags)
            raise UserError(f'--cfg-options {twice[0]} and one of {shown} both set {key}: give only one of them.')
    return options | (others or {})


def _is_segmentation(config: Config) -> bool:
    return config.get('default_scope') == 'mmseg'


def _epochs(config: Config, value: int) -> dict[str, Any]:
    if not (config.get('train_cfg') or {}).get('max_epochs'):
        raise UserError(f'{config.filename} sets its length in iterations: give --iterations instead of --epochs.')
    return {'train_cfg.max_epochs': value}


def _iterations(config: Config, value: int) -> dict[str, Any]:
    if not (config.get('train_cfg') or {}).get('max_iters'):
        raise UserError(f'{config.filename} sets its length in epochs: give --epochs instead of --iterations.')
    return {'train_cfg.max_iters': value}


def _batch_size(config: Config, value: int) -> dict[str, Any]:
    return {'train_dataloader.batch_size': value}


def _lr(config: Config, value: float) -> dict[str, Any]:
    return {'optim_wrapper.optimizer.lr': value}


def _data(config: Config, value: Path, loaders: Sequence[str] = tuple(LOADERS)) -> dict[str, Any]:
    options = {}
    for loader in loaders:
        dataset = (config.get(f'{loader}_dataloader') or {}).get('dataset') or {}
        place = f'{loader}_dataloader.dataset'
        if 'data_root' in dataset:
            options[f'{place}.data_root'] = str(value)
        elif 'root' in dataset:
            options[f'{place}.root'] = str(value / LOADERS[loader])
        elif dataset:
            raise UserError(
                f'{config.filename} has neither root nor data_root in {place}: set the images in the config instead of '
                'giving --data.'
            )
    return options


def _labels(config: Config, value: Path) -> dict[str, Any]:
    dataset = (config.get('train_dataloader') or {}).get('dataset') or {}
    if dataset.get('label_store') is None:
        raise UserError(f'{config.filename} uses no label store: choose a config that does, or leave out --labels.')
    return {'train_dataloader.dataset.label_store': str(value)}


def _model(config: Config, value: str) -> dict[str, Any]:
    if 'network' not in (config.get('model') or {}):
        raise UserError(
            f'The heads of {config.filename} only match its own backbone: choose the config of another model, such as '
            'upernet_lvvit_m, instead of giving --model.'
        )
    return {'model.network.model_name': value}


def _seed(config: Config, value: int) -> dict[str, Any]:
    return {'randomness.seed': value}


SETTINGS = {
    'epochs': _epochs,
    'iterations': _iterations,
    'batch_size': _batch_size,
    'lr': _lr,
    'data': _data,
    'labels': _labels,
    'model': _model,
    'seed': _seed,
}
