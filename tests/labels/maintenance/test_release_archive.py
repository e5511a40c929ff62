"""Tars and zips of score maps whose headers and directories say anything."""

import io
import os
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlabel.errors import UserError
from tokenlabel.labels.maintenance.release_archive import MAX_MAP_BYTES, open_archive, stems

MAPS = {'top5/cat/1.pt': b'one' * 300, 'top5/cat/2.pt': b'two' * 300, 'top5/dog/1.pt': b'three'}


def write_zip(path: Path, files: dict[str, bytes] = MAPS, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, 'w', method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes] = MAPS) -> Path:
    with tarfile.open(path, 'w') as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


WRITERS = pytest.mark.parametrize('write', [write_tar, write_zip])


@WRITERS
def test_hidden_maps_are_passed_over(tmp_path, write, caplog):
    archive = open_archive(write(tmp_path / 'maps', MAPS | {'__MACOSX/top5/cat/._1.pt': b'', 'top5/cat/._2.pt': b''}))
    assert {name: archive.read(index) for index, name in enumerate(archive.names)} == MAPS
    assert stems(archive) == ['cat/1', 'cat/2', 'dog/1']
    assert '3 maps; skipped 2 hidden' in caplog.text


@WRITERS
@pytest.mark.parametrize('name', ['../../../outside/evil.pt', '/outside/evil.pt', 'a/../../evil.pt'])
def test_names_that_lead_elsewhere_are_refused(tmp_path, write, name):
    with pytest.raises(UserError, match=r'maps contains the path .*evil\.pt., which .* leads outside its folder'):
        open_archive(write(tmp_path / 'maps', MAPS | {name: b'x'}))


def test_zips_of_windows_have_backslashes_between_folders(tmp_path):
    path = write_zip(tmp_path / 'maps', {'cat/1.pt': b'x', 'dog/1.pt': b'y'})
    path.write_bytes(path.read_bytes().replace(b'cat/1.pt', b'cat\\1.pt'))
    assert open_archive(path).names == ['cat/1.pt', 'dog/1.pt']
    path.write_bytes(path.read_bytes().replace(b'cat\\1.pt', b'..\\11.pt'))
    with pytest.raises(UserError, match='leads outside its folder'):
        open_archive(path)


@WRITERS
def test_two_maps_of_one_name_are_refused(tmp_path, write):
    with pytest.raises(UserError, match=r'holds 2 maps of the name top5/cat/1\.pt'):
        open_archive(write(tmp_path / 'maps', MAPS | {'./top5/cat/1.pt': b'other'}))


def test_an_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / 'maps')
    data = bytearray(path.read_bytes())
    data[data.index(b'PK\1\2') + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r'cat/1\.pt is encrypted'):
        open_archive(path)


def test_what_would_inflate_to_more_than_a_map_is_refused(tmp_path):
    path = write_zip(tmp_path / 'maps', {'cat/1.pt': bytes(MAX_MAP_BYTES + 1)})
    with pytest.raises(UserError, match=r'cat/1\.pt has more than 64 MB, which no score map has'):
        open_archive(path)


def test_no_more_is_inflated_than_the_directory_promises(tmp_path):
    path = write_zip(tmp_path / 'maps', {'cat/1.pt': bytes(10**7)})
    data = bytearray(path.read_bytes())
    place = data.index(b'PK\1\2')
    data[place + 24 : place + 28] = struct.pack('<I', 100)
    data[place + 16 : place + 20] = struct.pack('<I', zlib.crc32(bytes(100)))
    path.write_bytes(data)
    with pytest.raises(ValueError, match='its size differs from what the directory says'):
        open_archive(path).read(0)


@pytest.mark.parametrize('field', [20, 42])  # compressed size and place of the header, in the directory
def test_a_directory_that_points_beyond_the_end_is_refused(tmp_path, field):
    path = write_zip(tmp_path / 'maps')
    data = bytearray(path.read_bytes())
    place = data.rindex(b'PK\1\2') + field
    data[place : place + 4] = struct.pack('<I', 2**31)
    path.write_bytes(data)
    with pytest.raises(UserError, match='is not a tar or zip, or is damaged'):
        open_archive(path)


def test_pipes_and_large_files_are_not_read(tmp_path):
    (tmp_path / 'maps').mkdir()
    (tmp_path / 'maps/1.pt').touch()
    os.truncate(tmp_path / 'maps/1.pt', 2**40)
    os.mkfifo(tmp_path / 'maps/2.pt')
    archive = open_archive(tmp_path / 'maps')
    assert archive.names == ['1.pt']
    with pytest.raises(ValueError, match='has more than 64 MB'):
        archive.read(0)
    os.mkfifo(tmp_path / 'pipe.zip')
    with pytest.raises(UserError, match=r'Cannot read .*pipe\.zip \(not a regular file\)'):
        open_archive(tmp_path / 'pipe.zip')


@WRITERS
@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_archive_is_read_or_refused_in_one_sentence(tmp_path_factory, write, data):
    path = tmp_path_factory.getbasetemp() / f'damaged-{write.__name__}'
    whole = bytearray(write(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        replaced = data.draw(st.binary(min_size=1, max_size=8))
        whole[place : place + len(replaced)] = replaced
    path.write_bytes(whole[: data.draw(st.one_of(st.just(len(whole)), st.integers(1, len(whole))))])
    try:
        archive = open_archive(path)
    except UserError:
        return
    for index in range(len(archive.names)):
        with suppress(OSError, ValueError):  # which the import says of the map by name
            assert len(archive.read(index)) <= MAX_MAP_BYTES
