"""Tars whose headers say anything: one sentence, in bounded time and memory."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlabel.data.tar.index import index_tar
from tokenlabel.errors import UserError

SUFFIXES = ('.jpg',)


def header(kind: bytes, size: int, name: str = 'x.jpg') -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def write(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b''.join(parts) + bytes(1024))
    return path


def with_size(block: bytes, field: bytes) -> bytes:
    """A header whose size field is these bytes, its checksum right."""
    block = bytearray(block)
    block[124:136] = field.ljust(12, b'\0')
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ('record', 'names'),
    [
        (b'0 path=a.jpg\n', None),
        (b'-5 path=a.jpg\n', ['x.jpg']),  # what is no record is passed over
        (b'3 path=a.jpg\n', None),
        (b'path=a.jpg\n', ['x.jpg']),
        (b' \n', ['x.jpg']),
        (b'9' * 500, ['x.jpg']),
        (b'12 size=1_0\n', ['x.jpg']),
        (b'999 path=a.jpg\n', None),
        (b'14 size=-1024\n', None),
        (b'30 size=99999999999999999999\n', None),
    ],
)
def test_a_damaged_pax_header_ends_the_reading_or_says_nothing(tmp_path, record, names):
    path = write(tmp_path / 'x.tar', header(b'x', len(record)), padded(record), header(b'0', 3), padded(b'abc'))
    if names:
        assert index_tar(path, SUFFIXES).names == names
    else:
        with pytest.raises(UserError, match=r'x\.tar cannot be read as a tar'):
            index_tar(path, SUFFIXES)


@pytest.mark.parametrize('kind', [b'x', b'L'])
def test_chains_of_headers_are_refused(tmp_path, kind):
    path = write(tmp_path / 'x.tar', *[header(kind, 0)] * 5000, header(b'0', 0))
    with pytest.raises(UserError, match=r'x\.tar cannot be read as a tar \(maximum recursion depth'):
        index_tar(path, SUFFIXES)


def test_pax_headers_that_would_take_minutes_are_refused(tmp_path):
    digits = b'9' * 2**20
    with pytest.raises(UserError, match=rf'a header of {2**20} bytes'):
        index_tar(write(tmp_path / 'x.tar', header(b'x', len(digits)), digits), SUFFIXES)


@pytest.mark.parametrize('kind', [b'x', b'L', b'K'])
def test_headers_of_gigabytes_are_refused(tmp_path, kind):
    path = write(tmp_path / 'x.tar', header(kind, 10 * 2**30))
    os.truncate(path, 11 * 2**30)
    with pytest.raises(UserError, match=rf'a header of {10 * 2**30} bytes'):
        index_tar(path, SUFFIXES)


def test_names_that_no_file_system_takes_are_refused(tmp_path):
    name = b'a/' * 4000 + b'x.jpg'
    path = write(tmp_path / 'x.tar', header(b'L', len(name)), padded(name), header(b'0', 0))
    with pytest.raises(UserError, match='a name of 8005 characters'):
        index_tar(path, SUFFIXES)


@pytest.mark.parametrize('field', [b'-0000002000', b'-1', b'9', b'\xff' * 12, b'\x80' + b'\xff' * 11])
def test_sizes_that_are_none_are_refused(tmp_path, field):
    path = write(tmp_path / 'x.tar', with_size(header(b'0', 0), field))
    with pytest.raises(UserError, match=r'x\.tar cannot be read as a tar'):
        index_tar(path, SUFFIXES)


def test_members_beyond_the_end_are_refused(tmp_path):
    with pytest.raises(UserError, match='it is cut off'):
        index_tar(write(tmp_path / 'x.tar', header(b'0', 2**40)), SUFFIXES)


def test_a_folder_as_old_tars_write_it_is_no_image(tmp_path):
    assert index_tar(write(tmp_path / 'x.tar', header(b'\0', 0, 'x.jpg/')), SUFFIXES).names == []


def whole_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w', format=tarfile.PAX_FORMAT) as archive:
        contents = {'a/1.jpg': b'x' * 700, 'a/1.cls': b'3', 'a/1.json': b'{"label": 1}', 'b/' + 'n' * 120 + '.jpg': b''}
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1.5
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo('l.jpg')
        link.type, link.linkname = tarfile.SYMTYPE, 'a/1.jpg'
        archive.addfile(link)
    return buffer.getvalue()[:9216]


WHOLE = whole_tar()
BLOCKS = st.integers(0, len(WHOLE) // 512 - 1)
MUTATIONS = st.one_of(
    st.tuples(st.just('flip'), st.integers(0, len(WHOLE) - 1), st.integers(0, 255)),
    st.tuples(st.just('cut'), st.integers(0, len(WHOLE)), st.just(0)),
    st.tuples(st.just('size'), BLOCKS, st.binary(max_size=12)),
    st.tuples(st.just('kind'), BLOCKS, st.sampled_from(list(b'0123456789xgLKSVM'))),
    st.tuples(st.just('swap'), BLOCKS, BLOCKS),
)


def mutated(data: bytes, mutations: list[tuple]) -> bytes:
    for kind, place, value in mutations:
        data = bytearray(data)
        if kind == 'cut':
            data = data[:place]
        elif place < len(data) and kind == 'flip':
            data[place] = value
        elif kind == 'swap':
            first, second = slice(place * 512, place * 512 + 512), slice(value * 512, value * 512 + 512)
            data[first], data[second] = data[second], data[first]
        elif len(data) >= place * 512 + 512:
            block = data[place * 512 : place * 512 + 512]
            if kind == 'kind':
                block[156] = value
                value = bytes(block[124:136])
            data[place * 512 : place * 512 + 512] = with_size(bytes(block), value)
    return bytes(data)


@settings(max_examples=300)
@given(st.lists(MUTATIONS, min_size=1, max_size=4))
def test_a_damaged_tar_is_read_or_refused_in_one_sentence(tmp_path_factory, mutations):
    path = tmp_path_factory.getbasetemp() / 'damaged.tar'
    path.write_bytes(mutated(WHOLE, mutations))
    try:
        index = index_tar(path, SUFFIXES)
    except UserError as error:
        assert len(str(error)) < 6000
    else:
        size = path.stat().st_size
        assert all(0 <= o <= o + s <= size for o, s in zip(index.offsets, index.sizes, strict=True))
