"""Which checkpoint of a run to resume from, and reading it without executing what is in it."""

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
    """What MMEngine reads checkpoint files with: `read_checkpoint`, with the log history that resuming needs.

    Weights that are a file's own entries come back under `state_dict`, where hooks look for them.

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
    """The checkpoint that a run in `work_dir` resumes from; None where there is none.

    It is the one that `last_checkpoint` names, or, where that cannot be read, the last written of those that can;
    each that is passed over is logged. The first process looks and all processes get its answer.

    Args:
        work_dir: of the run.
        folder: its checkpoints; None is the work dir.

    Raises:
        UserError: there are checkpoints, or there were, and none of them can be read.
    """
    found = [_look(Path(work_dir), Path(folder or work_dir)) if is_main_process() else None]
    broadcast_object_list(found)
    path, faults = found[0]
    if faults and path is None:
        raise UserError(faults[0])
    for fault in faults:
        MMLogger.get_current_instance().warning(f'Passed over: {fault.removesuffix(".")}.')
    return path


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint in `work_dir` that was written last, as `newest_checkpoint` but unread; None where there is none.

    Raises:
        UserError: `last_checkpoint` is no name of one, and there are no others.
    """
    files, fault = _newest_first(Path(work_dir), Path(work_dir))
    if fault and not files:
        raise UserError(fault)
    return files[0] if files else None


def _look(work_dir: Path, folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that can be read, and what is wrong with newer ones."""
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
    """The checkpoint that `last_checkpoint` names, then the others, last written first; and what is wrong with it.

    Of what it says only the file's name counts: the folder may have been copied or moved since. Checkpoints of the
    best weights are none of the others: they hold no optimizer.
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
        says = f'names {text[:100]!r}, and there is no such checkpoint in {folder}' if text else 'is empty'
        fault = f'{pointer} {says}: remove it, or name a checkpoint.'
    return files, fault


SCALARS = tuple(np.dtype(kind) for kind in (np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_))


def log_history_globals() -> list:
    """What MMEngine's log history refers to when pickled: its class, that class's own methods, and NumPy numbers."""
    scalar = np.float64(0).__reduce__()[0]
    functions = [('_reconstruct', empty_array), ('scalar', scalar)]
    named = [(x, f'numpy.{core}.multiarray.{name}') for core in ('core', '_core') for name, x in functions]
    arrays = [np.ndarray, (scalar_type, 'numpy.dtype'), *map(type, SCALARS), *named]
    return [HistoryBuffer, (history_method, 'builtins.getattr'), *arrays]


def scalar_type(name: str, *options) -> np.dtype:
    """`np.dtype` for the numbers of a log history and nothing else.

    Raises:
        UserError: another type was asked for.
    """
    kind = next((kind for kind in SCALARS if name in (kind.str, kind.str[1:])), None)
    if kind is None:
        raise UserError(f'it asks for the NumPy type {name!r:.60}')
    return np.dtype(kind.str, copy=True)  # which unpickling then sets the byte order of


def empty_array(*_) -> np.ndarray:
    """What NumPy fills in a second step: its shape comes with the values then, and is no larger than they are."""
    return np.empty(0, np.uint8)


def history_method(owner: type, name: str):
    """`getattr` for the statistics of a log history and nothing else.

    Raises:
        UserError: anything else was asked for.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise UserError(f'it asks for {name} of {owner}')
    return getattr(owner, name)
