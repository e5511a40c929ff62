"""Reads a checkpoint file: checks its bytes first, then reads its contents without running code from it.

torch does not verify checksums. Its zip archives have one per member, which this module compares. The format before
torch 1.6 and safetensors have none, so a flipped bit in a weight goes unnoticed there.
"""

import argparse
import json
import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tokenlabel.checkpoints.contents import MAX_DEPTH, check_contents
from tokenlabel.errors import UserError
from tokenlabel.files.reading import explained, open_regular

HEADER = 'tokenlabel'  # key of our metadata, as JSON, in a safetensors file's header


def read_checkpoint(path: str | Path, map_location='cpu', rebuild: Sequence = ()) -> dict:
    """The contents of a checkpoint file, read without running any code from it.

    Other objects that trainers save (log histories, NumPy arrays, configs, paths) become inert stand-ins. If a
    safetensors file has the entries `meta` and `tokenlabel` of `tokenlabel.checkpoints.conversion` in its header, they
    are returned too, and its weights are under `state_dict`.

    Args:
        path: A `.safetensors` file, or one written by `torch.save`.
        map_location: As in `torch.load`; safetensors are read to the CPU.
        rebuild: Classes and functions to restore instead of stand-ins, as for `torch.serialization.safe_globals`.

    Raises:
        UserError: The file is missing, unreadable, damaged, not a checkpoint, or holds objects that only code can
            rebuild; also as `check_contents`.
    """
    path = Path(path)
    is_pickle = False
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix == '.safetensors':
                contents = _read_safetensors(path)
            else:
                is_pickle = _check_bytes(file, path, size)
                contents = _unpickled(file, map_location, rebuild)
        if not isinstance(contents, Mapping):
            kind = type(contents).__name__
            raise UserError(f'{path} holds a {kind}, not weights: give a file that holds a state dict')
        contents = dict(contents)
        check_contents(contents, path, size)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f'{path} cannot be read as a checkpoint {explained(error)}') from error
    except Exception as error:  # a damaged file can raise any exception
        raise UserError(_refusal(path, error, is_pickle)) from error
    return contents


class _StandIn:
    """Stand-in for any other object in a checkpoint; ignores its arguments and state."""

    def __init__(self, *args) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Pairs of class and name: on exit, torch's context would also remove a bare class that was allowed before.
_HARMLESS = [(argparse.Namespace, 'argparse.Namespace')]
_STAND_INS = {
    'mmengine.logging.history_buffer.HistoryBuffer': _StandIn,
    'builtins.getattr': _StandIn,  # names a HistoryBuffer's methods
    'numpy.ndarray': _StandIn,
    'numpy.dtype': _StandIn,
    'numpy.core.multiarray._reconstruct': _StandIn,
    'numpy.core.multiarray.scalar': _StandIn,
    'numpy._core.multiarray._reconstruct': _StandIn,
    'numpy._core.multiarray.scalar': _StandIn,
    'pathlib.PosixPath': _StandIn,
    'pathlib._local.PosixPath': _StandIn,
    # OpenMMLab's configs, old and new, are read as plain dictionaries.
    'mmcv.utils.config.Config': _StandIn,
    'mmcv.utils.config.ConfigDict': OrderedDict,
    'mmengine.config.config.ConfigDict': OrderedDict,
    'addict.addict.Dict': OrderedDict,
}
# Kinds of pickled tensors that no model here has; rebuilding some of them reads memory out of bounds.
_UNUSABLE = {
    '_rebuild_sparse_tensor': 'sparse tensors',
    '_rebuild_sparse_csr_tensor': 'sparse tensors',
    '_rebuild_qtensor': 'quantised tensors',
    '_rebuild_meta_tensor_no_storage': 'tensors without values (device `meta`)',
    '_rebuild_nested_tensor': 'nested tensors',
    '_rebuild_wrapper_subclass': 'tensors of another library',
    '_rebuild_device_tensor_from_numpy': 'tensors of another library',
    '_rebuild_device_tensor_from_cpu_tensor': 'tensors of another library',
}


def _stand_ins(rebuild: Sequence) -> list[tuple]:
    """The stand-ins for harmless objects, except those in `rebuild`."""
    named = {entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}' for entry in rebuild}
    return [(stand_in, name) for name, stand_in in _STAND_INS.items() if name not in named]


def _unpickled(file: BinaryIO, map_location, rebuild: Sequence) -> object:
    allowed = [*_HARMLESS, *_stand_ins(rebuild), *rebuild]
    file.seek(0)
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about the pickle protocol; unreadable files raise anyway
        return torch.load(file, map_location=map_location or 'cpu', weights_only=True)


def _read_safetensors(path: Path) -> dict:
    with safe_open(path, framework='pt') as file:
        kept = (file.metadata() or {}).get(HEADER)
    weights = load_file(path)
    if kept is None:
        return weights
    try:
        beside = json.loads(kept)
    except (ValueError, RecursionError):
        beside = None
    if not isinstance(beside, dict):
        raise UserError(f'{path} has an entry `{HEADER}` in its header that is not a JSON object: convert it again')
    return {**beside, 'state_dict': weights}


def _check_bytes(file: BinaryIO, path: Path, size: int) -> bool:
    """Checks the bytes of a `torch.save` file before torch reads it.

    Returns:
        True; all other files raise.

    Raises:
        UserError: the archive is compressed or encrypted, or as `_check_pickle`.
        Exception: any exception if the file is damaged or not a `torch.save` file.
    """
    start = file.read(4)
    file.seek(0)
    if start == b'PK\3\4':
        _check_archive(file, path, size)
    elif start[:1] == pickle.PROTO:  # also excludes torch's old tar archives
        for _ in range(5):  # magic number, version, platform, contents, order of the storages
            _check_pickle(file, path)
    else:
        raise EOFError('its first bytes are of another kind of file')
    return True


def _check_archive(file: BinaryIO, path: Path, size: int) -> None:
    file.seek(max(0, size - 22))
    if not file.read().startswith(b'PK\5\6'):
        raise EOFError('its end is missing')
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = {member.filename.lower() for member in members}
        if any(name.endswith('/constants.pkl') for name in names):
            return  # a TorchScript program, which torch refuses to read
        if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
            raise UserError(
                f'{path} is a packed or encrypted archive, as torch writes none: unpack it, or copy it anew'
            )
        if len(names) < len(members) or sum(member.file_size for member in members) > size:
            raise EOFError('its members overlap')
        if any(member.CRC for member in members):
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f'Bad CRC-32 for file {damaged!r}')
        else:  # torch can write without checksums; all of them are 0 then
            for member in members:
                member.CRC = None  # zipfile then skips the comparison
        for member in members:
            if member.filename.endswith('/data.pkl'):
                _check_pickle(archive.read(member), path)


def _check_pickle(data: bytes | BinaryIO, path: Path) -> None:
    """Scans the opcodes of a pickle without executing them.

    Raises:
        UserError: It creates tensors of unsupported kinds, or tuples nested so deep that hashing one would crash the
            process.
    """
    stack: list[int | None] = []  # nesting depths of the objects on the stack; None is a mark
    memo: dict[int, int] = {}
    for operation, argument, _ in pickletools.genops(data):
        if operation.name == 'GLOBAL' and (kind := _UNUSABLE.get(str(argument).rpartition(' ')[2])):
            raise UserError(f'{path} holds {kind}: save it with plain, dense tensors where it was made')
        if operation.name.endswith('PUT'):
            memo[argument] = stack[-1]
        elif operation.name.endswith('GET'):
            stack.append(memo[argument])
        else:
            depth = _applied(operation, stack)
            if depth > MAX_DEPTH:
                raise UserError(f'{path} nests values more than {MAX_DEPTH} deep, as no checkpoint does')


def _applied(operation: pickletools.OpcodeInfo, stack: list) -> int:
    """Applies an opcode to the stack of depths; returns the depth of its result."""
    before, after = operation.stack_before, operation.stack_after
    taken = []
    if pickletools.markobject in before:
        while (depth := stack.pop()) is not None:
            taken.append(depth)
        before = before[: before.index(pickletools.markobject)]
    taken += [stack.pop() for _ in before]
    if pickletools.markobject in after:
        stack.append(None)
        return 0
    depth = 1 + max(taken, default=0) if operation.name.startswith('TUPLE') else 0
    stack += [depth] * len(after)
    return depth


def _refusal(path: Path, error: Exception, is_pickle: bool) -> str:
    """The message for an error while reading a file: code in the file, or damage."""
    text = str(error)
    reason = text.rpartition('WeightsUnpickler error:')[2].strip().partition('\n')[0] or type(error).__name__
    code = re.search(r'GLOBAL ([\w.]+)', text)
    if code:
        reason = f'it pickles {code[1]}'
    elif 'TorchScript' in text:
        reason = 'it is a TorchScript program'
    elif isinstance(error, pickle.UnpicklingError) and is_pickle:
        reason = f'{reason} in its pickle'
    else:
        return f'{path} is truncated or not a checkpoint ({reason[:200]}): copy or download it again'
    return (
        f'{path} is refused because reading it could run code ({reason[:200]}): '
        'save the weights alone, torch.save(model.state_dict(), ...), where the file was made'
    )
