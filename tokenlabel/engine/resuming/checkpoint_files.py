"""Which checkpoint of a run to go on from, and reading it without executing what is in it."""

import re
from pathlib import Path

import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.runner import CheckpointLoader
from torch import Tensor

from tokenlabel.errors import UserError
from tokenlabel.models.checkpoint_contents import refuse_non_finite
from tokenlabel.models.checkpoint_file import read_checkpoint


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


def newest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint that a run in `work_dir` goes on from; None where there is none.

    It is the one that `last_checkpoint` names, or, where that cannot be read, the last written of those that can;
    each that is passed over is logged. The first process looks and all processes get its answer.

    Raises:
        UserError: there are checkpoints and none of them can be read.
    """
    found = [_look(Path(work_dir)) if is_main_process() else None]
    broadcast_object_list(found)
    path, faults = found[0]
    if faults and path is None:
        raise UserError(faults[0])
    for fault in faults:
        MMLogger.get_current_instance().warning(f'Passed over: {fault}.')
    return path


def _look(work_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that can be read, and what is wrong with newer ones."""
    faults = []
    for path in _newest_first(work_dir):
        try:
            load_from_local(path, 'cpu')
        except UserError as error:
            faults.append(str(error))
        else:
            return path, faults
    return None, faults


def _newest_first(work_dir: Path) -> list[Path]:
    """The checkpoint that `last_checkpoint` names, then the others in its folder and in `work_dir`, last written first.

    Checkpoints of the best weights are none of them: they hold no optimizer.
    """
    pointer = work_dir / 'last_checkpoint'
    named = Path(pointer.read_text().strip()) if pointer.is_file() else work_dir / 'none'
    if not named.is_file():
        named = work_dir / named.name  # the folder has moved since
    folders = {work_dir, named.parent}
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    others = [path for path in files if re.fullmatch(r'(iter|epoch)_\d+\.pth', path.name)]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [named] * named.is_file() + [path for path in others if path != named]


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
