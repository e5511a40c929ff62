"""Files that are damaged, of another kind or made to do harm: each is refused in one sentence, and nothing runs."""

import argparse
import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_of
from torch import Tensor

from tokenlabel.checkpoints.weights import load_weights, read_checkpoint, state_dict_of
from tokenlabel.errors import UserError


def weights() -> dict[str, Tensor]:
    return {
        'head.weight': torch.arange(12.0).reshape(3, 4),
        'head.bias': torch.ones(3, dtype=torch.float16),
        'norm.running_mean': torch.linspace(-1, 1, 5),
        'norm.num_batches_tracked': torch.tensor(7),
    }


def content() -> dict:
    noted = {'architecture': 'lvvit_t', 'num_classes': 3, 'class_names': ['a', 'b', 'c'], 'token_score_weight': 0.5}
    meta = {'iter': 2, 'dataset_meta': {'classes': ('a', 'b'), 'palette': [[0, 0, 255], (1, 2, 3)]}}
    return {'state_dict': weights(), 'meta': meta, 'tokenlabel': noted, 'args': argparse.Namespace(lr=0.1)}


def bytes_of(content: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def read(path: Path) -> dict[str, Tensor]:
    """The weights as all commands come to them."""
    return state_dict_of(read_checkpoint(path), source=path)


def refused(path: Path, match: str) -> str:
    with pytest.raises(UserError, match=match) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message and '\n' not in message and len(message) < 600
    return message


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / 'c.pth'


# Damage


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


@cache  # of one length throughout: legacy files name tensors by their place in memory
def whole_file(form: str) -> bytes:
    if form == 'safetensors':
        return safetensors_of(weights())
    return bytes_of(content(), _use_new_zipfile_serialization=form == 'zip')


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


@settings(max_examples=300)
@given(data=st.data())
def test_no_flipped_bit_of_an_archive_goes_unnoticed(tmp_path_factory, data):
    whole = whole_file('zip')
    position = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.mktemp('flipped', numbered=True) / 'c.pth'
    path.write_bytes(flipped(whole, position, data.draw(st.integers(0, 7))))
    try:
        found = read_checkpoint(path)
    except UserError as error:
        assert str(path) in str(error) and '\n' not in str(error)
    else:
        assert same(found, content()), 'only bits that say nothing, such as those between members, may differ'


@settings(max_examples=150)
@given(data=st.data(), form=st.sampled_from(['legacy', 'safetensors']))
def test_flipped_bits_where_there_is_no_checksum_end_in_a_sentence_or_in_a_dictionary(tmp_path_factory, data, form):
    whole = whole_file(form)
    path = tmp_path_factory.mktemp('flipped', numbered=True) / f'c.{form}'
    path.write_bytes(flipped(whole, data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))))
    try:
        assert isinstance(read_checkpoint(path), dict)
    except UserError as error:
        assert str(path) in str(error) and '\n' not in str(error)


@settings(max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True), form=st.sampled_from(['zip', 'legacy', 'safetensors']))
def test_a_file_that_ends_early_is_refused(tmp_path_factory, share, form):
    whole = whole_file(form)
    path = tmp_path_factory.mktemp('cut', numbered=True) / f'c.{form}'
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, 'is truncated or not a checkpoint')


def test_a_file_written_without_checksums_is_read(path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_checkpoint(path), content())


# Archives that torch did not write


def rewritten(path: Path, change: Callable[[str, bytes], bytes] = lambda name, data: data, **options) -> Path:
    """An archive of the same members with right checksums."""
    with zipfile.ZipFile(io.BytesIO(bytes_of(content()))) as source, zipfile.ZipFile(path, 'w', **options) as target:
        for member in source.infolist():
            target.writestr(member.filename, change(member.filename, source.read(member)))
    return path


def test_an_archive_that_was_unpacked_and_packed_again_is_read(path):
    assert same(read_checkpoint(rewritten(path)), content())


def test_a_packed_archive_is_refused_before_it_is_unpacked(path):
    refused(rewritten(path, compression=zipfile.ZIP_DEFLATED), 'packed or encrypted archive')


def test_a_tensor_whose_values_are_too_few_is_refused(path):
    refused(rewritten(path, lambda name, data: data[:8] if name.endswith('data/0') else data), 'truncated or not')


def test_members_of_one_name_are_refused(path):
    rewritten(path)
    with pytest.warns(UserWarning, match='Duplicate'), zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('archive/data/0', bytes(48))
    refused(path, 'truncated or not')


# Files that are none


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    ('make', 'match'),
    [
        (lambda path: None, r'cannot be read as a checkpoint \(no such file or directory\): check the path'),
        (lambda path: path.mkdir(), r'cannot be read as a checkpoint \(is a directory\): give a file'),
        (lambda path: os.mkfifo(path), r'cannot be read as a checkpoint \(not a regular file\)'),
        (lambda path: path.touch(), 'is truncated or not a checkpoint'),
        (lambda path: path.write_bytes(b'\x80'), 'is truncated or not a checkpoint'),
        (lambda path: path.write_bytes(b'PK\3\4' + bytes(99)), 'is truncated or not a checkpoint'),
    ],
)
def test_what_is_no_file_of_weights_is_refused_without_waiting(tmp_path, suffix, make, match):
    path = tmp_path / f'c{suffix}'
    make(path)
    refused(path, match)


def test_a_file_that_may_not_be_read_is_not_called_truncated(path, monkeypatch):
    torch.save(weights(), path)

    def forbidden(*_, **__):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(os, 'open', forbidden)
    refused(path, r'cannot be read as a checkpoint \(permission denied\): check its permissions')


# Tensors of other kinds


@pytest.mark.parametrize(
    ('tensor', 'kind'),
    [
        (torch.eye(3).to_sparse(), 'sparse tensors'),
        (torch.eye(3).to_sparse_csr(), 'sparse tensors'),
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), 'quantised tensors'),
        (torch.empty(3, device='meta'), 'tensors without values'),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), 'nested tensors'),
        (torch.ones(1).expand(1000), 'head.weight as a view that repeats the values of a smaller tensor'),
    ],
    ids=['sparse', 'csr', 'quantised', 'meta', 'nested', 'expanded'],
)
@pytest.mark.parametrize('legacy', [False, True])
def test_tensors_that_are_not_plain_are_refused_by_their_kind(path, tensor, kind, legacy):
    torch.save({'head.weight': tensor}, path, _use_new_zipfile_serialization=not legacy)
    refused(path, f'holds {kind}')


def test_views_into_larger_tensors_are_read(path):
    table = torch.arange(24.0).reshape(4, 6)
    torch.save({'column': table[:, 2], 'turned': table.t(), 'same': table}, path)
    found = read(path)
    assert torch.equal(found['column'], table[:, 2]) and torch.equal(found['turned'], table.t())


@pytest.mark.parametrize('dtype', [torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize('strict', [True, False])
def test_weights_that_are_no_real_numbers_do_not_fit(dtype, strict):
    model = torch.nn.Linear(3, 3)
    state = {name: value.to(dtype) for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r'2 of another type \(weight \w+ instead of float32, bias'):
        load_weights(model, state, 'c.pth', strict)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2], ids=str
)
def test_weights_that_are_not_finite_are_refused_by_name(path, dtype, value):
    broken = torch.ones(40).index_fill(0, torch.tensor(23), value).to(dtype)
    torch.save({'state_dict': weights() | {'norm.running_var': broken}}, path)
    refused(path, r'weights that are NaN or infinite \(the first: norm\.running_var\)')


def test_large_and_small_and_no_values_are_finite(path):
    extremes = torch.tensor([torch.finfo(torch.float16).max, torch.finfo(torch.float16).min], dtype=torch.float16)
    torch.save({'head.weight': extremes.repeat(500), 'empty': torch.empty(0, 3)}, path)
    assert set(read(path)) == {'head.weight', 'empty'}


# What stands beside the weights


def deep(levels: int) -> list:
    value = []
    for _ in range(levels):
        value = [value]
    return value


def shared(levels: int) -> list:
    """Small in the file, and 2 ** levels values to whoever walks over it."""
    value = ['x']
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'meta': 5}, 'entry `meta` that is not a dictionary but 5'),
        ({'meta': 'iter'}, 'entry `meta` that is not a dictionary'),
        ({'tokenlabel': 5}, 'entry `tokenlabel` that is not a dictionary'),
        ({'tokenlabel': None}, 'entry `tokenlabel` that is not a dictionary but None'),
        ({'state_dict': 5}, 'entry `state_dict` that is not a dictionary'),
        ({'state_dict': [torch.ones(2)]}, 'entry `state_dict` that is not a dictionary but a list'),
        ({'ema_state_dict': 'x'}, 'entry `ema_state_dict` that is not a dictionary'),
        ({5: 'x'}, 'entry named 5, which is not a string'),
        ({'state_dict': {5: torch.ones(2)}}, 'entry named 5, which is not a string'),
        ({'model': {('a', 'b'): torch.ones(2)}}, 'entry named a tuple, which is not a string'),
        ({'tokenlabel': {'architecture': 5}}, 'architecture=5'),
        ({'tokenlabel': {'architecture': ['lvvit_t']}}, 'architecture=a list'),
        ({'tokenlabel': {'num_classes': 'many'}}, "num_classes='many'"),
        ({'tokenlabel': {'num_classes': True}}, 'num_classes=True'),
        ({'tokenlabel': {'class_names': 'abc'}}, "class_names='abc'"),
        ({'tokenlabel': {'class_names': ['a', 5]}}, 'class_names=a list'),
        ({'tokenlabel': {'class_names': ['a', 'b'], 'num_classes': 3}}, '2 names for 3 classes'),
        ({'tokenlabel': {'token_score_weight': 'half'}}, "token_score_weight='half'"),
        ({'tokenlabel': {'token_score_weight': float('nan')}}, 'token_score_weight=nan'),
        ({'tokenlabel': {'token_score_weight': torch.ones(1)}}, 'token_score_weight=a Tensor'),
        ({'meta': {'dataset_meta': 5}}, 'entry `dataset_meta` that is not a dictionary but 5'),
        ({'meta': {'dataset_meta': {'classes': 5}}}, 'gives 5 as class names'),
        ({'meta': {'dataset_meta': {'classes': ['a', 2]}}}, 'gives a list as class names'),
        ({'meta': {'dataset_meta': {'palette': [[0, 0]]}}}, 'gives a list as class colours'),
        ({'meta': {'dataset_meta': {'palette': [[0, 0, 999]]}}}, 'gives a list as class colours'),
        ({'meta': {'CLASSES': 5}}, 'gives 5 as class names'),
        ({'meta': {'PALETTE': 'red'}}, "gives 'red' as class colours"),
        ({'meta': {'log': deep(200)}}, 'nests values more than 100 deep'),
        ({'log': shared(30)}, 'holds more than 10000000 values beside its tensors'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_entries_of_other_types_are_refused_by_name(path, changes, match):
    torch.save(content() | changes, path)
    refused(path, match)


def test_entries_that_are_none_count_as_absent(path):
    torch.save(weights() | {'meta': None, 'state_dict': None}, path)
    assert read(path).keys() == weights().keys()


def test_a_list_nested_as_deep_as_a_file_allows_ends_in_a_sentence(path):
    rewritten(path, lambda name, data: b'\x80\x02' + b']' * 200_000 + b'a' * 199_999 + b'.' if 'pkl' in name else data)
    refused(path, 'holds a list, not weights')
    nested = b'\x80\x02}X\1\0\0\0a' + b']' * 200_000 + b'a' * 199_999 + b's.'
    rewritten(path, lambda name, data: nested if 'pkl' in name else data)
    refused(path, 'nests values more than 100 deep')


@pytest.mark.parametrize('legacy', [False, True])
def test_nested_keys_do_not_overflow_the_stack_of_c(path, legacy):
    nested = b'\x80\x02})' + b'\x85' * 2_000_000 + b'Ns.'  # {((((),),),): None}: its hash is computed by recursion
    if legacy:
        start = bytes_of({}, _use_new_zipfile_serialization=False)
        path.write_bytes(start[: start.index(b'}q')] + nested[2:])
    else:
        rewritten(path, lambda name, data: nested if 'pkl' in name else data)
    refused(path, 'nests values more than 100 deep')


class Call:
    """Pickled as the call of a function that torch allows."""

    def __init__(self, function: Callable, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    'value',
    [
        Call(bytearray, 10**13),
        Call(torch.FloatTensor, 10**13),
        Call(torch.Size, (10**9,)),
        Call(OrderedDict, [(1, 2, 3)]),
        Call(torch.device, 'no device'),
        Call(getattr, argparse.Namespace, '__init__'),
        Call(getattr, 'abc', 'upper'),
        Call(torch._utils._rebuild_tensor_v2, 5, 0, (3,), (1,), False, OrderedDict()),
    ],
    ids=lambda call: str(call.call[0].__name__),
)
def test_calls_in_a_pickle_end_in_a_sentence_or_in_nothing(path, value):
    torch.save({'head.weight': torch.ones(3), 'other': value}, path)
    try:
        assert read(path).keys() == {'head.weight'}
    except UserError as error:
        assert '\n' not in str(error) and str(path) in str(error)


def test_memory_that_no_file_holds_is_not_promised(path):
    """torch makes room for what the old format names before it reads any of it."""
    whole = bytes_of({'a': torch.ones(3)}, _use_new_zipfile_serialization=False)
    large = whole.replace(b'K\x03Nt', b'J' + struct.pack('<i', 2**31 - 1) + b'Nt')
    assert large != whole
    path.write_bytes(large)
    refused(path, 'truncated or not')


# Safetensors


def header_of(**entries) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack('<Q', len(text)) + text


@pytest.mark.parametrize(
    'data',
    [
        struct.pack('<Q', 2**63) + b'{}',
        struct.pack('<Q', 10**8) + b'{}',
        struct.pack('<Q', 2) + b'[]',
        struct.pack('<Q', 4) + b'\xff\xfe{}',
        struct.pack('<Q', 400_000) + b'[' * 200_000 + b']' * 200_000,
        header_of(a={'dtype': 'F32', 'shape': [10**9], 'data_offsets': [0, 4 * 10**9]}),
        header_of(a={'dtype': 'F32', 'shape': [2**40, 2**40], 'data_offsets': [0, 4]}) + bytes(4),
        header_of(a={'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 0]}) + bytes(4),
        header_of(a={'dtype': 'Q9', 'shape': [1], 'data_offsets': [0, 4]}) + bytes(4),
        header_of(a=5),
    ],
)
def test_a_damaged_header_of_safetensors_is_refused(tmp_path, data):
    path = tmp_path / 'c.safetensors'
    path.write_bytes(data)
    refused(path, 'is truncated or not a checkpoint')


@pytest.mark.parametrize('kept', ['no JSON', '5', '[1]', 'null', '[' * 200_000])
def test_what_is_kept_in_the_header_of_safetensors_has_to_be_a_json_object(tmp_path, kept):
    path = tmp_path / 'c.safetensors'
    path.write_bytes(safetensors_of(weights(), {'tokenlabel': kept}))
    refused(path, 'has an entry `tokenlabel` in its header that is not a JSON object')


def test_entries_in_the_header_of_safetensors_are_checked_as_all_are(tmp_path):
    path = tmp_path / 'c.safetensors'
    path.write_bytes(safetensors_of(weights(), {'tokenlabel': '{"tokenlabel": 5}'}))
    refused(path, 'entry `tokenlabel` that is not a dictionary')


def test_a_plain_pickle_is_no_checkpoint(path):
    path.write_bytes(pickle.dumps({'a': 5}, protocol=2))
    refused(path, 'is truncated or not a checkpoint')
