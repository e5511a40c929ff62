"""Finds the configs that are shipped with this project by name."""

import difflib
from pathlib import Path

from tokenlabel.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
# In an installed wheel the configs are inside the package, in a clone beside it.
CONFIGS = PACKAGE / 'configs' if (PACKAGE / 'configs').is_dir() else PACKAGE.parent / 'configs'


def config_path(name: str | Path) -> Path:
    """Path of a config file. An existing path takes precedence over a shipped config of the same name.

    Args:
        name: a path, or the name of a shipped config below `configs/`, with or without `.py`, such as `upernet_lvvit`.

    Raises:
        UserError: there is no such config; the message suggests similar names.
    """
    path = Path(name)
    if path.exists() or path.is_absolute():
        return path
    shipped = shipped_config(name)
    if shipped is not None:
        return shipped
    names = [file.relative_to(CONFIGS).with_suffix('').as_posix() for file in sorted(CONFIGS.rglob('*.py'))]
    names = [known for known in names if not known.startswith('_base_')]
    text = path.with_suffix('').as_posix().removeprefix('configs/')
    near = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    hint = f'shipped configs with similar names are {", ".join(near)}' if near else f'shipped ones are in {CONFIGS}'
    raise UserError(f'No config at {name}: {hint}.')


def config_name(name: str | Path) -> str:
    """Name of a config for its work dir: `cityscapes/upernet_lvvit` if it is shipped, else the stem of its file."""
    path = config_path(name).resolve()
    return path.relative_to(CONFIGS).with_suffix('').as_posix() if path.is_relative_to(CONFIGS) else path.stem


def shipped_config(name: str | Path) -> Path | None:
    """Path of a shipped config, named with or without `configs/` and `.py`; None if it does not exist."""
    path = CONFIGS / Path(name).as_posix().removeprefix('configs/')
    return next((file for file in (path, path.with_name(f'{path.name}.py')) if file.is_file()), None)
