"""The configs that come with this project: where they are, and which one a name means."""

import difflib
from pathlib import Path

from tokenlabel.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
# Beside the package in a clone, within it where a wheel was installed.
CONFIGS = PACKAGE / 'configs' if (PACKAGE / 'configs').is_dir() else PACKAGE.parent / 'configs'


def config_path(name: str | Path) -> Path:
    """The file of a config: a path that exists, else a shipped config by its name, such as `upernet_lvvit`.

    Args:
        name: a path; or the name of a shipped config below `configs/`, with or without `.py`.

    Raises:
        UserError: there is none; the nearest names are given.
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
    hint = f'the nearest names of shipped configs are {", ".join(near)}' if near else f'shipped ones are in {CONFIGS}'
    raise UserError(f'No config at {name}: {hint}.')


def config_name(name: str | Path) -> str:
    """What a run is named by: `cityscapes/upernet_lvvit` for a shipped config, the stem of another file."""
    path = config_path(name).resolve()
    return path.relative_to(CONFIGS).with_suffix('').as_posix() if path.is_relative_to(CONFIGS) else path.stem


def shipped_config(name: str | Path) -> Path | None:
    """The shipped config of that name, with or without `configs/` and `.py`; None where there is none."""
    path = CONFIGS / Path(name).as_posix().removeprefix('configs/')
    return next((file for file in (path, path.with_name(f'{path.name}.py')) if file.is_file()), None)
