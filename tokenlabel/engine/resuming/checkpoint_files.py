"""Finds the checkpoint of a run to resume from and reads it without executing code from it."""

import os
import re
from pathlib import Path, PurePath

import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.runner import CheckpointLoader
from torch import Tensor

from tokenlabel.checkpoints.contents import refuse_non_finite
from tokenlabel.checkpoints.reading import read_checkpoint
from tokenlabel.errors import UserError
from tokenlabel.files.reading import read_text

LAST_CHECKPOINT = 'last_checkpoint'  # the file of a work dir that names its newest checkpoint


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location=None) -> dict:
    """MMEngine's loader of checkpoint files: `read_checkpoint` plus the log history that resuming needs.

    A bare state dict is returned under `state_dict`, where hooks look for it.

    Raises:
        UserError: as `read_checkpoint`, or weights are NaN or infinite.
    """
    checkpoint = read_checkpoint(filename, map_location, rebuild=log_history_globals())
    if checkpoint and all(isinstance(value, Tensor) for value in checkpoint.values()):
        checkpoint = {'state_dict': checkpoint}
    for part in ('state_dict', 'ema_state_dict'):
        refuse_non_finite(checkpoint.get(part, {}), filename)
    return checkpoint


def newest_checkpoint(work_dir: str | Path, folder: str | Path | None = None) -> Path | None:
    """The checkpoint that a run in `work_dir` resumes from; None if there is none.

    This is the one that `last_checkpoint` names or, if it cannot be read, the newest readable one. Unreadable
    checkpoints are logged. Rank 0 searches and broadcasts the result.

    Args:
        work_dir: work dir of the run.
        folder: folder of the checkpoints; None for the work dir.

    Raises:
        UserError: checkpoints exist, or `last_checkpoint` names one, but none can be read.
    """
    found = [_look(Path(work_dir), Path(folder or work_dir)) if is_main_process() else None]
    broadcast_object_list(found)
    path, faults = found[0]
    if faults and path is None:
        raise UserError(faults[0])
    for fault in faults:
        MMLogger.get_current_instance().warning(f'Skipped: {fault.removesuffix(".")}.')
    return path


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest checkpoint in `work_dir`, as `newest_checkpoint` but without reading it; None if there is none.

    Raises:
        UserError: `last_checkpoint` names no checkpoint, and there are no others.
    """
    files, fault = _newest_first(Path(work_dir), Path(work_dir))
    if fault and not files:
        raise UserError(fault)
    return files[0] if files else None


def _look(work_dir: Path, folder: Path) -> tuple[Path | None, list[str]]:
    """The newest readable checkpoint, and error messages for newer ones."""
    files, fault = _newest_first(work_dir, folder)
    faults = []
    for path in files:
        try:
            load_from_local(path, 'cpu')
        except UserError as error:
            faults.append(str(error))
        else:
            return path, [fault] * bool(fault) + faults
    return None, faults + [fault] * bool(fault)


def _newest_first(work_dir: Path, folder: Path) -> tuple[list[Path], str | None]:
    """The checkpoint that `last_checkpoint` names, then the others, newest first; and what is wrong with the pointer.

    Only the file name in `last_checkpoint` is used, as the folder may have been moved. Best checkpoints are left out,
    as they hold no optimizer state.
    """
    names = folder.iterdir() if folder.is_dir() else ()
    files = [path for path in names if re.fullmatch(r'(iter|epoch)_\d+\.pth', path.name) and path.is_file()]
    files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    pointer, fault = work_dir / LAST_CHECKPOINT, None
    if os.path.lexists(pointer):
        try:
            text = read_text(pointer).strip()
        except UserError as error:
            return files, str(error)
        named = folder / PurePath(text).name
        if text and os.path.isfile(named):
            return [named, *(path for path in files if path != named)], None
        problem = f'names {text[:100]!r}, and there is no such checkpoint in {folder}' if text else 'is empty'
        fault = f'{pointer} {problem}: remove it, or name a checkpoint.'
    return files, fault


SCALARS = tuple(np.dtype(kind) for kind in (np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_))


def log_history_globals() -> list:
    """Globals in a pickle of MMEngine's log history: its class, the methods of that class, and NumPy scalars."""
    scalar = np.float64(0).__reduce__()[0]
    functions = [('_reconstruct', empty_array), ('scalar', scalar)]
    named = [(x, f'numpy.{core}.multiarray.{name}') for core in ('core', '_core') for name, x in functions]
    arrays = [np.ndarray, (scalar_type, 'numpy.dtype'), *map(type, SCALARS), *named]
    return [HistoryBuffer, (history_method, 'builtins.getattr'), *arrays]


def scalar_type(name: str, *options) -> np.dtype:
    """`np.dtype` restricted to the scalar types of a log history.

    Raises:
        UserError: another type is requested.
    """
    kind = next((kind for kind in SCALARS if name in (kind.str, kind.str[1:])), None)
    if kind is None:
        raise UserError(f'it asks for the NumPy type {name!r:.60}')
    return np.dtype(kind.str, copy=True)  # a copy, as unpickling sets its byte order


def empty_array(*_) -> np.ndarray:
    """An empty array that unpickling fills later; its shape then comes with the values."""
    return np.empty(0, np.uint8)


def history_method(owner: type, name: str):
    """`getattr` restricted to the public methods of a log history.

    Raises:
        UserError: anything else is requested.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise UserError(f'it asks for {name} of {owner}')
    return getattr(owner, name)
