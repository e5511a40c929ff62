"""Reading configs: what is misspelt or would have no effect is refused."""

from pathlib import Path

import pytest

from tests.places import CONFIGS
from tokenlabel.engine.config.run_config import explains_errors, load_config, register_imports
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(UserError, match=r'No config at .*nowhere\.py'):
        load_config(tmp_path / 'nowhere.py')


def test_a_config_that_is_not_python_is_named(tmp_path):
    with pytest.raises(UserError, match=r'broken\.py cannot be read'):
        load_config(write(tmp_path / 'broken.py', 'model = dict('))


def test_a_misspelt_key_is_refused_with_the_key_it_resembles(tmp_path):
    with pytest.raises(UserError, match=r'`train_dataloder`.*did you mean `train_dataloader`'):
        load_config(write(tmp_path / 'config.py', 'train_dataloder = dict(batch_size=2)'))


def test_names_that_a_config_uses_itself_are_allowed(tmp_path):
    config = load_config(write(tmp_path / 'config.py', 'width = 8\nmodel = dict(channels=2 * width)'))
    assert config.model.channels == 16


def test_options_change_entries():
    config = load_config(CONFIGS / 'pretrain_lvvit_s.py', {'train_dataloader.batch_size': 32})
    assert config.train_dataloader.batch_size == 32


@pytest.mark.parametrize(('option', 'hint'), [('trian_cfg.max_epochs', 'train_cfg'), ('base_lr', 'Runner')])
def test_options_that_would_change_nothing_are_refused(option, hint):
    with pytest.raises(UserError, match=rf'--cfg-options {option} would change nothing.*{hint}'):
        load_config(CONFIGS / 'pretrain_lvvit_s.py', {option: 1})


@pytest.mark.parametrize(
    'path', sorted(CONFIGS.glob('*.py')) + sorted(CONFIGS.glob('demo/**/*.py')), ids=lambda p: p.stem
)
def test_every_config_of_the_project_can_be_read(path):
    assert load_config(path).custom_imports.imports


def test_an_argument_that_a_class_does_not_have_is_one_sentence(tmp_path):
    config = load_config(CONFIGS / 'pretrain_lvvit_t.py', {'model.loss.dense_wieght': 2.0, 'work_dir': str(tmp_path)})
    register_imports(config)
    with (
        pytest.raises(UserError, match=r"pretrain_lvvit_t\.py .*'dense_wieght'"),
        explains_errors('pretrain_lvvit_t.py'),
    ):
        Runner.from_cfg(config)


def test_an_unknown_type_is_one_sentence(tmp_path):
    config = load_config(CONFIGS / 'pretrain_lvvit_t.py', {'model.type': 'Clasifier', 'work_dir': str(tmp_path)})
    register_imports(config)
    with pytest.raises(UserError, match=r'Clasifier is not in the'), explains_errors('pretrain_lvvit_t.py'):
        Runner.from_cfg(config)


def test_a_mark_to_delete_what_nothing_was_inherited_for_is_taken_out(tmp_path):
    (tmp_path / 'a.py').write_text(
        'model = dict(_delete_=True, a=1, b=[dict(_delete_=True)], c=dict(d=dict(_delete_=True)))'
    )
    assert load_config(tmp_path / 'a.py').model == dict(a=1, b=[{}], c=dict(d={}))
