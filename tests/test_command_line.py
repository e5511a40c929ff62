"""`tokenlabel COMMAND`: which commands there are, what each imports, and configs by name."""

import subprocess
import sys

import pytest

from tests.commands import run_command
from tests.places import CONFIGS, ROOT
from tokenlabel.__main__ import COMMANDS, main
from tokenlabel.engine.config.run_config import load_config
from tokenlabel.errors import UserError
from tokenlabel.files.shipped_configs import config_path


def test_help_lists_every_command_with_a_line(capsys):
    assert main(['--help']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(f'  {name:<10} {line}' in lines for name, line in COMMANDS.items())
    # a script of the name `inspect` would be taken for Python's own module by the scripts beside it
    assert {path.stem for path in (ROOT / 'tools').glob('*.py')} - {'torchrun'} == set(COMMANDS) - {'inspect'}


@pytest.mark.parametrize('arguments', [[], ['--help']])
def test_help_imports_no_torch(arguments):
    command = [sys.executable, '-X', 'importtime', '-m', 'tokenlabel', *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
    assert 'tokenlabel.cli.boundary' in imported and not {'torch', 'timm', 'numpy'} & imported


@pytest.mark.parametrize('order', ['import timm, tokenlabel', 'import tokenlabel; import timm'])
def test_importing_the_package_registers_its_models_with_timm_before_and_after_it(order):
    program = f"{order}; print(timm.is_model('lvvit_s'), timm.is_model('mlp_mixer'))"
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == 'True True\n'


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ([], 'error: No command is given: `tokenlabel --help` lists the commands.'),
        (['trian'], "error: There is no command 'trian': did you mean `tokenlabel train`?"),
        (['7'], "error: There is no command '7': `tokenlabel --help` lists the commands."),
    ],
)
def test_a_command_that_is_none_is_one_sentence(capsys, arguments, said):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f'{said}\n'


@pytest.mark.parametrize('name', sorted(set(COMMANDS) - {'demo'}))
def test_a_command_without_arguments_is_one_sentence(capsys, name):
    assert run_command(name) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert 'required' in line and line.endswith('--help lists all options.')


# Those of `annotate` and `train` begin in the tests of their launchers.
@pytest.mark.parametrize('name', sorted(set(COMMANDS) - {'annotate', 'train', 'inspect'}))
def test_a_tool_is_a_process_without_a_warning(run_tool, name):
    done = run_tool(f'tools/{name}.py', '--help')
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.startswith(f'usage: tokenlabel {name}')


@pytest.mark.parametrize('name', COMMANDS)
def test_a_command_shows_how_it_is_called(capsys, name):
    assert main([name, '--help']) == 0
    out = capsys.readouterr().out
    assert out.startswith(f'usage: tokenlabel {name}') and f'\ntokenlabel {name} ' in out.replace('    ', '')


def test_a_config_is_found_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ('upernet_lvvit', 'upernet_lvvit.py', 'configs/upernet_lvvit.py'):
        assert config_path(name) == CONFIGS / 'upernet_lvvit.py'
    assert config_path('demo/fpn') == CONFIGS / 'demo/fpn.py'
    (tmp_path / 'upernet_lvvit.py').write_text('a = 1')
    assert config_path('upernet_lvvit.py').resolve() == tmp_path / 'upernet_lvvit.py'


def test_a_config_that_does_not_exist_is_met_with_the_nearest_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'No config at upernet_lvitt: shipped .* similar names are upernet_lvvit'):
        config_path('upernet_lvitt')


def test_a_config_of_a_user_inherits_a_shipped_one(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = ['tokenlabel::upernet_lvvit.py']\nmodel = dict(backbone=dict(with_cp=True))"
    )
    config = load_config(tmp_path / 'mine.py')
    shipped = load_config('upernet_lvvit')
    shipped.model.backbone.with_cp = True
    assert config.to_dict() == shipped.to_dict()


def test_a_base_that_does_not_ship_is_one_sentence(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'tokenlabel::upernet.py'")
    with pytest.raises(UserError, match=r'mine\.py has a `_base_` that cannot be found: .*no config upernet\.py'):
        load_config(tmp_path / 'mine.py')


@pytest.mark.parametrize('package', ['mmengine', 'mmseg'])
def test_without_openmmlab_the_extra_is_named(tmp_path, package):
    (tmp_path / package).mkdir()
    (tmp_path / package / '__init__.py').write_text(f"raise ModuleNotFoundError('none', name='{package}')")
    program = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); from tokenlabel.__main__ import main; ' + (
        "sys.exit(main(['train', 'upernet_lvvit', '--dry-run']))"
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=False)
    said = f"error: This command needs {package}, which is not installed: run pip install 'tokenlabel[mm]'.\n"
    assert (done.returncode, done.stderr) == (2, said)
