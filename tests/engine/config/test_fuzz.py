"""Configs with a few values changed at random: they are built, or refused in one sentence, and nothing else."""

import copy
import math
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from tests.engine.config.test_schema import read
from tokenlabel.engine.config.options import merge_options
from tokenlabel.engine.config.run_config import explains_errors, register_imports
from tokenlabel.engine.config.schema import check_config
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError

# No number so large that a network of that size would be made.
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.floats(-3, 12, allow_nan=False),
    st.sampled_from(
        [math.nan, math.inf, 0.5, 1.0, -1, 0, '', 'x', '4', 'nan', [], {}, [1, 2], (0.5, 1), {'type': 'X'}]
    ),
)


def leaves(node: object, path: tuple = ()) -> Iterator[tuple]:
    """Paths of all entries of a config."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from leaves(value, (*path, key))


@st.composite
def changes(draw: st.DrawFn, config: dict) -> dict:
    """A config with one to three entries replaced, renamed or deleted."""
    config = copy.deepcopy(config)
    for _ in range(draw(st.integers(1, 3))):
        sections = sorted(set(config) - {'work_dir'})  # the command sets it
        section = draw(st.sampled_from(sections))
        path = draw(st.sampled_from([(section,), *leaves(config[section], (section,))]))
        node = config
        for key in path[:-1]:
            node = node[key]
        kind = draw(st.sampled_from(['replace'] * 3 + ['rename', 'delete']))
        if kind == 'replace' or isinstance(node, list):
            node[path[-1]] = copy.deepcopy(draw(PLAIN))
        else:
            value = node.pop(path[-1])
            if kind == 'rename':
                node[path[-1] + draw(st.sampled_from('dsx_'))] = value
    return config


def base(name: str, options: dict, work_dir: str) -> dict:
    config = copy.deepcopy(read(name))
    loader = {'num_workers': 0, 'persistent_workers': False, 'pin_memory': False}
    for stage in ('train', 'val', 'test'):
        options |= {f'{stage}_dataloader.{key}': value for key, value in loader.items()}
    options |= {'work_dir': work_dir, 'log_level': 'ERROR', 'visualizer.vis_backends': [{'type': 'LocalVisBackend'}]}
    merge_options(config, options)
    return config.to_dict()


def build(config: dict) -> None:
    config = Config(copy.deepcopy(config))
    register_imports(config)
    check_config(config, 'a.py')
    with explains_errors('a.py', config):
        runner = Runner.from_cfg(config)
        if runner._train_loop is not None:
            runner._train_loop = runner.build_train_loop(runner._train_loop)
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
            runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
            if runner.param_schedulers is not None:
                runner.build_param_scheduler(runner.param_schedulers)


@pytest.mark.parametrize('name', ['demo/pretrain', 'demo/upernet'])
def test_a_changed_config_is_built_or_refused_in_one_sentence(name, scenes, label_store, tmp_path):
    options = {
        'demo/pretrain': {
            'train_dataloader.dataset.root': str(scenes / 'imagenet/train'),
            'train_dataloader.dataset.label_store': str(label_store),
            'val_dataloader.dataset.root': str(scenes / 'imagenet/val'),
        },
        'demo/upernet': {f'{stage}_dataloader.dataset.data_root': str(scenes / 'ade') for stage in ('train', 'val')}
        | {'model.backbone.init_cfg': None},
    }[name]
    config = base(name, options, str(tmp_path / 'run'))
    build(config)

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(changes(config))
    def check(changed: dict) -> None:
        try:
            build(changed)
        except UserError as error:
            assert '\n' not in str(error)

    check()
