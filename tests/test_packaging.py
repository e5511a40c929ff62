"""What an installation promises: quiet imports in one direction, pins inside the ranges, an environment made once."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from unittest import mock

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tokenlabel
from tests.places import ROOT

OPENMMLAB = {'mmengine', 'mmcv', 'mmseg'}
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / 'tokenlabel').rglob('*.py'))
# The rooms of the house, each above all that it may import.
FLOORS = [
    {'errors.py'},
    {'processes', 'files', 'devices.py', 'argument_checks.py'},
    {'image_files'},
    {'transforms', 'checkpoints', 'pictures'},
    {'models'},
    {'objective', 'labels'},
    {'data'},
    {'engine'},
    {'mmseg_ext'},
    {'benchmarks', 'demo'},
    {'cli'},
    {'__main__.py'},
]
WITH_OPENMMLAB = ('engine', 'benchmarks', 'demo', 'cli')
MODULES_OUTSIDE_ENGINE = [path for path in MODULES if path.parts[1] not in WITH_OPENMMLAB]


def run_python(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=False)


def imported_names(path: Path) -> Iterator[str]:
    """Full dotted names a file imports, also inside functions."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = '.'.join(path.parts[: len(path.parts) - node.level]) if node.level else ''
            module = '.'.join(part for part in (package, node.module) if part)
            yield from (f'{module}.{alias.name}' for alias in node.names)


def room_of(name: str) -> str | None:
    """The folder or file of ours that a dotted name lies in; None for others."""
    package, _, rest = name.partition('.')
    if package == 'mmseg_ext':
        return package
    room = rest.split('.')[0]
    if package != 'tokenlabel' or not room:
        return None
    if (ROOT / package / room).is_dir():
        return room
    return f'{room}.py' if (ROOT / package / f'{room}.py').is_file() else None


@pytest.fixture(scope='module')
def setup_arguments() -> dict:
    """The keyword arguments with which setup.py calls `setup`."""
    with mock.patch('setuptools.setup') as setup:
        runpy.run_path(str(ROOT / 'setup.py'))
    return setup.call_args.kwargs


@pytest.fixture(scope='module')
def pins() -> dict[str, str]:
    """Distribution name -> version in the requirements files."""
    files = (ROOT / name for name in ('requirements.txt', 'requirements-originals.txt'))
    lines = [line for file in files for line in file.read_text(encoding='utf-8').splitlines()]
    lines = [line for line in lines if line and not line.startswith('#')]
    return {canonicalize_name(name): version for name, version in (line.split('==') for line in lines)}


class TestImports:
    @pytest.mark.parametrize('package', ['tokenlabel', 'mmseg_ext'])
    def test_importing_prints_nothing(self, package):
        done = run_python(f'import {package}')
        assert (done.returncode, done.stdout, done.stderr) == (0, '', '')

    def test_importing_tokenlabel_leaves_openmmlab_out(self):
        done = run_python(f'import sys, tokenlabel; print(sorted({OPENMMLAB} & set(sys.modules)))')
        assert done.stdout == '[]\n', done.stderr

    def test_only_the_engine_and_the_commands_import_openmmlab(self):
        for path in MODULES_OUTSIDE_ENGINE:
            assert not {name for name in imported_names(path) if name.split('.')[0] in OPENMMLAB}, path

    def test_imports_point_downwards(self):
        floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
        packages = sorted(path.relative_to(ROOT) for path in (ROOT / 'mmseg_ext').rglob('*.py'))
        upward = [
            f'{path} imports {name}'
            for path in [*MODULES, *packages]
            if path != Path('tokenlabel/__init__.py')
            for name in imported_names(path)
            if (room := room_of(name)) and (own := room_of('.'.join(path.with_suffix('').parts))) != room
            if floor_of[room] >= floor_of[own]
        ]
        assert not upward


class TestRequirements:
    def test_every_requirement_is_pinned_inside_its_range(self, setup_arguments, pins):
        ranges = [setup_arguments['install_requires'], *setup_arguments['extras_require'].values()]
        for requirement in map(Requirement, chain.from_iterable(ranges)):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement

    def test_a_plain_install_asks_for_no_openmmlab_distribution(self, setup_arguments):
        names = {Requirement(requirement).name for requirement in setup_arguments['install_requires']}
        assert not {name for name in names if name.removeprefix('onedl-').startswith('mm')}

    def test_the_two_kinds_of_openmmlab_distributions_are_never_asked_for_together(self, setup_arguments):
        extras = {
            name: {Requirement(requirement).name for requirement in requirements}
            for name, requirements in setup_arguments['extras_require'].items()
        }
        assert 'mmsegmentation' in extras['mm-original'] and 'onedl-mmsegmentation' in extras['mm']
        for names in extras.values():
            openmmlab = [name for name in names if name.removeprefix('onedl-').startswith('mm')]
            assert len({name.startswith('onedl-') for name in openmmlab}) < 2

    def test_a_plain_install_brings_what_is_imported_outside_the_engine(self, setup_arguments):
        distributions = {'PIL': 'pillow', 'sklearn': 'scikit-learn', 'cv2': 'opencv-python-headless'}
        names = {name.split('.')[0] for path in MODULES_OUTSIDE_ENGINE for name in imported_names(path)}
        names = {distributions.get(name, name) for name in names - sys.stdlib_module_names - {'tokenlabel'}}
        extras = [setup_arguments['extras_require'][name] for name in ('readers', 'tiff')]
        names -= {Requirement(requirement).name for requirement in chain.from_iterable(extras)}
        names -= {'triton'}  # torch brings it where it finds use, and the loss does without
        assert names <= {Requirement(requirement).name for requirement in setup_arguments['install_requires']}

    def test_both_packages_are_installed_and_the_tests_are_not(self, setup_arguments):
        assert {name.split('.')[0] for name in setup_arguments['packages']} == {'tokenlabel', 'mmseg_ext'}

    def test_every_folder_with_modules_is_a_package(self, setup_arguments):
        folders = {
            '.'.join(path.parent.relative_to(ROOT).parts)
            for package in ('tokenlabel', 'mmseg_ext')
            for path in (ROOT / package).rglob('*.py')
        }
        folders |= {
            '.'.join(('tokenlabel.configs', *path.parent.relative_to(ROOT / 'configs').parts))
            for path in (ROOT / 'configs').rglob('*.py')
        }
        assert folders == set(setup_arguments['packages'])

    def test_the_version_is_the_one_of_the_package(self, setup_arguments):
        assert setup_arguments['version'] == tokenlabel.__version__


STAND_IN_PYTHON = """#!/bin/sh
case "$1 $2" in
    "--version "*) echo Python 3.12.0 ;;
    "-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo created >> log ;;
    "-m pip") echo installed >> log; test ! -e no-network ;;
esac
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder, its name with spaces, of what `make install` reads, with an interpreter that only notes its calls."""
    folder = tmp_path / 'a folder with spaces'
    folder.mkdir()
    for name in ('Makefile', 'requirements.txt', 'setup.py'):
        shutil.copy(ROOT / name, folder)
    python = folder / 'python'
    python.write_text(STAND_IN_PYTHON)
    python.chmod(0o755)
    return folder


def make_install(folder: Path, python: str = './python') -> tuple[subprocess.CompletedProcess, list[str]]:
    """Runs `make install`; returns the process and what its interpreter was asked to do."""
    log = folder / 'log'
    log.write_text('')
    command = ['make', 'install', f'PYTHON={python}']
    environment = {**os.environ, 'MAKEFLAGS': ''}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done, list(dict.fromkeys(log.read_text().split()))


class TestEnvironment:
    def test_it_is_created_once(self, checkout):
        assert make_install(checkout)[1] == ['created', 'installed']
        assert make_install(checkout)[1] == []

    def test_changed_requirements_are_installed_into_it(self, checkout):
        make_install(checkout)
        later = time.time() + 10
        os.utime(checkout / 'requirements.txt', (later, later))
        assert make_install(checkout)[1] == ['installed']

    def test_an_interrupted_installation_is_redone(self, checkout):
        (checkout / 'no-network').touch()
        assert make_install(checkout)[0].returncode != 0
        (checkout / 'no-network').unlink()
        done, steps = make_install(checkout)
        assert (done.returncode, steps) == (0, ['created', 'installed'])

    def test_one_that_came_with_a_copied_folder_is_redone(self, checkout):
        make_install(checkout)
        copied = shutil.copytree(checkout, checkout.with_name('copied'))
        assert make_install(copied)[1] == ['created', 'installed']

    def test_without_a_usable_python_the_remedy_is_named(self, checkout):
        done, steps = make_install(checkout, python='./missing-python')
        assert done.returncode != 0
        assert steps == []
        assert 'No usable Python among: ./missing-python.' in done.stderr
        assert 'make install PYTHON=' in done.stderr


class TestSources:
    def test_no_file_names_a_path_outside_the_repository(self):
        outside = re.compile(r'(?<![\w.~}])/(?:root|home|work|tmp|opt)/|\.\./' + 'shared')
        folders = ('tokenlabel', 'mmseg_ext', 'configs', 'tools', 'tests', 'docs', '.ci')
        files = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith('.')]
        files += [path for folder in folders for path in (ROOT / folder).rglob('*') if path.is_file()]
        named = [
            f'{path.relative_to(ROOT)}: {line.strip()}'
            for path in files
            if path.suffix in {'', '.cff', '.json', '.md', '.py', '.sh', '.toml', '.txt'}
            for line in path.read_text(encoding='utf-8').splitlines()
            if outside.search(line)
        ]
        assert not named

    def test_continuous_integration_tests_both_kinds_of_distributions(self):
        lines = (ROOT / '.ci' / 'run').read_text(encoding='utf-8').splitlines()
        assert lines[-3:] == ['make test-originals', 'make test', 'exec make test-slow']
