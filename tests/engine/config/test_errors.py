"""What is raised while a config is built is one sentence with the key's path; a defect keeps its traceback."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.registry import MODELS
from torch import nn

from tests.engine.config.test_schema import read
from tokenlabel.engine.config.options import merge_options
from tokenlabel.engine.config.run_config import explains_errors, register_imports
from tokenlabel.errors import UserError


def built(name: str, **options) -> nn.Module:
    config = copy.deepcopy(read(name))
    merge_options(config, {key.replace('__', '.'): value for key, value in options.items()})
    register_imports(config)
    with explains_errors(f'{name}.py', config):
        return MODELS.build(config.model)


@pytest.mark.parametrize(
    ('name', 'options', 'said'),
    [
        (
            'demo/pretrain',
            {'model__network__num_heads': 5},
            r'lvvit_t cannot be built with these arguments: .*divisible',
        ),
        ('demo/pretrain', {'model__network__pos_embed': 'x'}, 'lvvit_t cannot be built with these arguments'),
        ('demo/pretrain', {'model__network__img_size': 30}, 'does not divide the image size 30x30'),
        (
            'demo/upernet',
            {'model__backbone__num_heads': 5},
            r'upernet\.py cannot be built: model\.backbone: .*divisible',
        ),
        ('demo/upernet', {'model__decode_head__in_index': 3}, r'cannot be built: model\.decode_head: '),
        ('demo/upernet', {'model__decode_head__in_channels': 96}, r'cannot be built: model\.decode_head: '),
        (
            'demo/upernet',
            {'model__neck__norm_cfg': dict(type='XN')},
            r'cannot be built: model\.neck: |unknown type: XN',
        ),
        ('demo/upernet', {'model__decode_head__loss_decode': dict(typ=1, _delete_=True)}, r'model\.decode_head'),
        ('demo/upernet', {'model__decode_head__type': 'UPerHeed'}, r'UPerHeed is not in .* \(model\.decode_head\)'),
        ('demo/upernet', {'model__auxiliary_head__num_convs': -1}, r'cannot be built: model\.auxiliary_head: '),
        ('demo/upernet', {'model__decode_head__chanels': 1}, r'cannot be built: model\.decode_head: .*chanels'),
    ],
)
def test_the_sentence_names_the_key_that_is_built(name, options, said):
    with pytest.raises(UserError, match=said) as error:
        built(name, **options)
    assert '\n' not in str(error.value)


def test_what_is_not_raised_by_building_keeps_its_traceback():
    with pytest.raises(ValueError, match='of training') as error, explains_errors('a.py'):
        raise ValueError('of training')
    assert not isinstance(error.value, UserError)


def test_a_defect_of_a_class_keeps_its_traceback():
    @MODELS.register_module(name='Defective', force=True)
    class Defective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.missing.append(1)

    config = Config(dict(model=dict(type='Defective')))
    with pytest.raises(AttributeError, match='missing'), explains_errors('a.py', config):
        MODELS.build(config.model)
    MODELS.module_dict.pop('Defective')


def test_of_two_parts_alike_the_one_that_is_built_is_named():
    @MODELS.register_module(name='Refusing', force=True)
    class Refusing(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            if n > 1:
                raise ValueError(f'{n} is too many')

    config = Config(dict(model=dict(a=dict(type='Refusing', n=1), b=[dict(type='Refusing', n=2)])))
    with (
        pytest.raises(UserError, match=r'a\.py cannot be built: model\.b\.0: 2 is too many'),
        explains_errors('a.py', config),
    ):
        for part in (config.model.a, config.model.b[0]):
            MODELS.build(part)
    MODELS.module_dict.pop('Refusing')


def test_what_refuses_the_optimizer_of_a_model_is_named_also_outside_a_run():
    settings = dict(optimizer=dict(type='SGD', lr=1.0), paramwise_cfg=dict(norm_decay_mult=0.0))  # wants a weight_decay
    with pytest.raises(UserError, match=r'a\.py cannot be built: optim_wrapper'), explains_errors('a.py', Config({})):
        build_optim_wrapper(nn.Linear(1, 1), settings)


def test_a_schedule_that_waits_for_a_score_which_is_not_measured_is_named():
    schedule = ReduceOnPlateauParamScheduler(
        torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0), 'lr', monitor='loss'
    )
    with pytest.raises(UserError, match=r"param_scheduler: .*\['mIoU'\], but got key loss"), explains_errors('a.py'):
        schedule.step(dict(mIoU=1.0))
