"""Reads config files and reports invalid ones in one sentence.

A Python config is a program: reading it runs it. YAML and JSON configs are plain data: YAML tags create no objects.
"""

import ast
import json
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import mmengine.config.config
import yaml
from mmengine.config import Config
from mmengine.fileio import BaseFileHandler, JsonHandler, register_handler

from tokenlabel.engine.config.mmseg_scope import enable_mmseg_scope
from tokenlabel.errors import UserError
from tokenlabel.files.reading import read_text
from tokenlabel.files.shipped_configs import shipped_config

SUFFIXES = ('.py', '.yaml', '.yml', '.json')
# Bytes; no config is longer.
LARGEST = 10_000_000


def _open_text(path: str | Path, mode: str = 'r', encoding: str = 'utf-8') -> IO[str]:
    """`open` for MMEngine's config reader, which skips the byte order mark that some editors write."""
    return open(path, mode, encoding='utf-8-sig' if mode == 'r' else encoding)


mmengine.config.config.open = _open_text


def _base_path(name: str, heir: str) -> tuple[str, str | None]:
    """Resolves a name in `_base_` as MMEngine does, and `tokenlabel::NAME.py` among the shipped configs."""
    scope, _, shipped = name.partition('::')
    if scope != 'tokenlabel':
        return _path_of_mmengine(name, heir)
    path = shipped_config(shipped)
    if path is None:
        raise FileNotFoundError(f'tokenlabel has no config {shipped}')
    return str(path), None


_path_of_mmengine = Config._get_cfg_path
Config._get_cfg_path = staticmethod(_base_path)


@register_handler('json')
class MarkedJsonHandler(JsonHandler):
    """MMEngine's JSON handler that also accepts a byte order mark."""

    def load_from_fileobj(self, file: IO[str], **kwargs) -> object:
        return json.loads(file.read().removeprefix('\ufeff'))


@register_handler(['yaml', 'yml'])
class SafeYamlHandler(BaseFileHandler):
    """MMEngine's YAML handler for plain data: it refuses tags such as `!!python/object/apply`."""

    def load_from_fileobj(self, file, **kwargs) -> object:
        return yaml.safe_load(file)

    def dump_to_fileobj(self, obj: object, file, **kwargs) -> None:
        yaml.dump(obj, file, **kwargs)

    def dump_to_str(self, obj: object, **kwargs) -> str:
        return yaml.dump(obj, **kwargs)


def read_config(path: Path) -> Config:
    """Reads a config and everything it inherits from.

    Raises:
        UserError: a file is missing, not a config file, not UTF-8, has a syntax error or inherits from itself; the
            sentence names file and line.
    """
    enable_mmseg_scope()
    files = list(_files_of(path, ()))
    try:
        return Config.fromfile(path, import_custom_modules=False)
    except KeyboardInterrupt:
        raise
    except RecursionError as error:
        raise UserError(f'Config {path} refers to itself, or is nested too deep.') from error
    except BaseException as error:  # SystemExit too: a config may end the program that reads it
        if isinstance(error, UserError):
            raise
        raise UserError(f'Config {_place(error, files) or f"{path} cannot be read: "}{_reason(error)}.') from error


def _files_of(path: Path, heirs: tuple[Path, ...]) -> Iterator[Path]:
    """The file and all its base configs; each is checked before any is run."""
    place = path.resolve()
    by = f' (`_base_` of {heirs[-1]})' if heirs else ''
    if place in heirs:
        chain = ' -> '.join(heir.name for heir in (*heirs[heirs.index(place) :], place))
        raise UserError(f'Config {path} inherits from itself: {chain}; take it out of one `_base_`.')
    if path.suffix not in SUFFIXES:
        raise UserError(f'Config {path}{by} is not a config file: name one that ends in {", ".join(SUFFIXES)}.')
    if not path.exists():
        if not heirs:
            raise UserError(f'No config at {path}: the ones that come with this project are in configs/.')
        raise UserError(f'Config {heirs[-1]} inherits from {path}, which is not there: correct its `_base_`.')
    if path.is_file() and path.stat().st_size > LARGEST:
        raise UserError(f'Config {path}{by} has {path.stat().st_size:,} bytes and is not a config file: name another.')
    text = read_text(path, 'Config')
    yield place
    for base in _bases(path, text):
        yield from _files_of(base, (*heirs, place))


def _bases(path: Path, text: str) -> list[Path]:
    """The paths in `_base_`, as far as they are known without running the file."""
    if path.suffix == '.py':
        named = _literal_base(path, text)
    else:
        content = _data(path, text)
        if not isinstance(content, dict):
            raise UserError(f'Config {path} holds no keys: write `key: value` lines such as those in configs/.')
        named = content.get('_base_', [])
    named = named if isinstance(named, list | tuple) else [named]
    if not all(isinstance(name, str) for name in named):
        raise UserError(f'Config {path} has a `_base_` that is neither the path of a config nor a list of such paths.')
    try:
        return [Path(Config._get_cfg_path(name, str(path))[0]) for name in named]
    except Exception as error:
        raise UserError(f'Config {path} has a `_base_` that cannot be found: {_reason(error)}.') from error


def _literal_base(path: Path, text: str) -> object:
    variables = {
        'fileDirname': path.parent,
        'fileBasename': path.name,
        'fileBasenameNoExtension': path.stem,
        'fileExtname': path.suffix,
    }
    for name, value in variables.items():
        text = re.sub(r'\{\{\s*' + name + r'\s*\}\}', str(value).replace('\\', '/'), text)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        # MMEngine's substitution of {{ ... }} may turn it into Python; if not, MMEngine reports it
        if '{{' in text:
            return []
        raise UserError(f'Config {path} cannot be read: line {error.lineno}: {error.msg}.') from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise UserError(f'Config {path} cannot be read: {_reason(error)}.') from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) == '_base_':
            try:
                return ast.literal_eval(node.value)
            except ValueError:  # an expression, which MMEngine evaluates
                return []
    return []


def _data(path: Path, text: str) -> object:
    try:
        return json.loads(text) if path.suffix == '.json' else yaml.safe_load(text)
    except yaml.constructor.ConstructorError as error:
        mark = error.problem_mark
        raise UserError(
            f'Config {path} cannot be read: line {mark.line + 1 if mark else 1}: {error.problem}, and a config is '
            'plain data.'
        ) from error
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        mark = getattr(error, 'problem_mark', None)
        line = mark.line + 1 if mark else getattr(error, 'lineno', 1)
        reason = getattr(error, 'problem', None) or getattr(error, 'msg', 'no such file')
        raise UserError(f'Config {path} cannot be read: line {line}: {reason}.') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'Config {path} cannot be read: {_reason(error)}.') from error


def _place(error: BaseException, files: list[Path]) -> str:
    """Start of a sentence with the config file and line that raised an error; '' if no config did."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() in files]
    return f'{frames[-1].filename} cannot be read: line {frames[-1].lineno}: ' if frames else ''


def _reason(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}{f": {text}" if text else ""}'[:300].removesuffix('.')
