"""Reading a checkpoint file: first its bytes are checked, then its contents are read without running code from it.

torch looks at no checksum. The zip archives that it writes have one for each of their members; they are compared here.
The format before torch 1.6 and safetensors have none: what a flipped bit does to a weight in them cannot be seen.
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

HEADER = 'tokenlabel'  # name, in a safetensors file's header, of what we keep beside the weights, as JSON


def read_checkpoint(path: str | Path, map_location='cpu', rebuild: Sequence = ()) -> dict:
    """The contents of a checkpoint file, read without running any code from it.

    Objects that trainers leave beside the weights (log histories, NumPy arrays, configs, paths) come back as inert
    stand-ins. The entries `meta` and `tokenlabel` that `tokenlabel.checkpoints.conversion` keeps in the header of a
    safetensors file come back beside its weights, which are under `state_dict` then.

    Args:
        path: A `.safetensors` file, or one written by `torch.save`.
        map_location: As of `torch.load`; safetensors are read to the CPU.
        rebuild: What to bring back instead of stand-ins, as `torch.serialization.safe_globals` takes it.

    Raises:
        UserError: The file is missing, may not be read, is damaged, is no checkpoint, holds objects that only code can
            rebuild, or as `check_contents`.
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
    except Exception as error:  # the bytes of a damaged file can fail in any way
        raise UserError(_refusal(path, error, is_pickle)) from error
    return contents


class _StandIn:
    """Takes the place of any object that a checkpoint carries beside the weights, and ignores what it is made from."""

    def __init__(self, *args) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Paired with its name, as torch removes what was allowed already when a bare class leaves the context.
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
    # Configs of OpenMMLab, old and new: their entries are read, as those of a plain dictionary.
    'mmcv.utils.config.Config': _StandIn,
    'mmcv.utils.config.ConfigDict': OrderedDict,
    'mmengine.config.config.ConfigDict': OrderedDict,
    'addict.addict.Dict': OrderedDict,
}
# How torch pickles tensors that no model here has; of some, making them reads memory that nothing has bounded.
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
    """What stands in for harmless objects, but for those that are brought back."""
    named = {entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}' for entry in rebuild}
    return [(stand_in, name) for name, stand_in in _STAND_INS.items() if name not in named]


def _unpickled(file: BinaryIO, map_location, rebuild: Sequence) -> object:
    allowed = [*_HARMLESS, *_stand_ins(rebuild), *rebuild]
    file.seek(0)
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about the pickle's protocol: what cannot be read is refused
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
        raise UserError(f'{path} keeps an entry `{HEADER}` in its header that is no JSON object: convert it anew')
    return {**beside, 'state_dict': weights}


def _check_bytes(file: BinaryIO, path: Path, size: int) -> bool:
    """Checks all that can be checked of a file of `torch.save` before torch reads it.

    Returns:
        Whether it is one.

    Raises:
        UserError: it is packed, or as `_check_pickle`.
        Exception: of any kind: it is damaged, or no such file.
    """
    start = file.read(4)
    file.seek(0)
    if start == b'PK\3\4':
        _check_archive(file, path, size)
    elif start[:1] == pickle.PROTO:  # and nothing that torch could take for one of its tar archives
        for _ in range(5):  # magic number, version, platform, the contents, the order of what follows
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
        else:  # torch can be told to compute none; all of them are 0 then
            for member in members:
                member.CRC = None  # which zipfile compares with nothing
        for member in members:
            if member.filename.endswith('/data.pkl'):
                _check_pickle(archive.read(member), path)


def _check_pickle(data: bytes | BinaryIO, path: Path) -> None:
    """Looks through the instructions of a pickle without following them.

    Raises:
        UserError: It makes tensors of unusable kinds, or tuples so deep in each other that computing the hash of one
            would crash the process.
    """
    stack: list[int | None] = []  # depths of what the pickle has made; None is a mark
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
    """Replaces on the stack what an instruction takes by what it gives; returns the depth of that."""
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
    """What an error of reading a file means: code in the file, or damage."""
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
