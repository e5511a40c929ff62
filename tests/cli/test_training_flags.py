"""Short flags of `train` and `test`: what each changes, and where it has no place."""

import argparse

import pytest

from tests.commands import run_command
from tokenlabel.cli import training_flags
from tokenlabel.engine.config.options import ConfigOptions
from tokenlabel.engine.config.run_config import load_config
from tokenlabel.errors import UserError

TRAIN = (training_flags.add_training_flags, training_flags.training_options)
TEST = (training_flags.add_test_flags, training_flags.test_options)


def options(config: str, *flags: str, of=TRAIN) -> dict:
    add, resolve = of
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    add(parser)
    return resolve(parser.parse_args([config, *flags]))


@pytest.mark.parametrize(
    ('config', 'flags', 'expected'),
    [
        ('pretrain_lvvit_s', ['--epochs', '100'], {'train_cfg.max_epochs': 100}),
        ('upernet_lvvit', ['--iterations', '9'], {'train_cfg.max_iters': 9}),
        ('upernet_lvvit', ['--batch-size', '4', '--lr', '1e-3'],
         {'train_dataloader.batch_size': 4, 'optim_wrapper.optimizer.lr': 1e-3}),
        ('pretrain_lvvit_s', ['--data', 'my/images'],
         {'train_dataloader.dataset.root': 'my/images/train', 'val_dataloader.dataset.root': 'my/images/val',
          'test_dataloader.dataset.root': 'my/images/val'}),
        ('upernet_lvvit', ['--data', 'ade'],
         {f'{part}_dataloader.dataset.data_root': 'ade' for part in ('train', 'val', 'test')}),
        ('pretrain_lvvit_s', ['--labels', 'store', '--model', 'lvvit_m'],
         {'train_dataloader.dataset.label_store': 'store', 'model.network.model_name': 'lvvit_m'}),
        ('pretrain_lvvit_s', ['--seed', '7', '--cfg-options', 'log_level=ERROR'],
         {'randomness.seed': 7, 'log_level': 'ERROR'}),
    ],
)  # fmt: skip
def test_a_flag_stands_for_entries_of_the_config(config, flags, expected):
    found = options(config, *flags)
    assert found == expected
    load_config(config, found)


@pytest.mark.parametrize(
    ('config', 'flags', 'said'),
    [
        ('upernet_lvvit', ['--epochs', '3'], 'sets its length in iterations: give --iterations'),
        ('pretrain_lvvit_s', ['--iterations', '3'], 'sets its length in epochs: give --epochs'),
        ('upernet_lvvit', ['--labels', 'x'], 'uses no label store'),
        ('upernet_lvvit', ['--model', 'lvvit_m'], 'choose the config of another model'),
        ('custom', ['--data', 'x'], 'neither root nor data_root'),
        ('pretrain_lvvit_s', ['--epochs', '3', '--cfg-options', 'train_cfg.max_epochs=4'], 'give only one of them'),
        (
            'pretrain_lvvit_s',
            ['--lr', '0.1', '--cfg-options', "optim_wrapper={'type': 'OptimWrapper'}"],
            'only one of them',
        ),
    ],
)
def test_a_flag_without_a_place_or_given_twice_is_one_sentence(config, flags, said):
    with pytest.raises(UserError, match=said):
        options(config, *flags)


def test_the_flags_of_test_change_the_data_that_is_tested():
    assert options('pretrain_lvvit_s', '--data', 'd', '--batch-size', '9', of=TEST) == {
        'test_dataloader.dataset.root': 'd/val',
        'test_dataloader.batch_size': 9,
    }


def test_a_dry_run_shows_the_curve_of_the_length_asked_for(capsys):
    assert run_command('train', 'pretrain_lvvit_t', '--epochs', 100, '--dry-run') == 0
    out = capsys.readouterr().out
    assert 'length        100 epochs x 10,010 iterations' in out
    assert '0.0002 at 5%' in out and '1e-05 at 100%' in out
