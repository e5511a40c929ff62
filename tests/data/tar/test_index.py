"""Finding the members of tars."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from tokenlabel.data.tar.index import index_tar
from tokenlabel.errors import UserError
from tokenlabel.files.tar_members import Member, entries

NAMES = (
    'plain.jpg',
    './folder/two words.png',
    'x' * 99 + '/' + 'y' * 60 + '.jpg',
    'long/' * 60 + 'name.jpg',
    'blümchen/日本.jpg',
)


def write(path: Path, names=NAMES, **options) -> Path:
    with tarfile.open(path, 'w', **options) as archive:
        folder = tarfile.TarInfo('folder')
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = 300 * number
            member.mtime = 1.5 + number  # pax writes a header of its own for what is not whole
            archive.addfile(member, io.BytesIO(bytes([number]) * member.size))
        link = tarfile.TarInfo('link.jpg')
        link.type, link.linkname = tarfile.SYMTYPE, 'plain.jpg'
        archive.addfile(link)
    return path


def found(path: Path) -> list[tuple]:
    with path.open('rb') as file:
        return [tuple(entry) for entry in entries(file) if isinstance(entry, Member)]


def expected(path: Path) -> list[tuple]:
    with tarfile.open(path) as archive:
        return [(member.name, member.offset_data, member.size) for member in archive if member.isreg()]


@pytest.mark.parametrize('kind', ['PAX_FORMAT', 'GNU_FORMAT'])
def test_members_are_those_of_tarfile(tmp_path, kind):
    path = write(tmp_path / 'images.tar', format=getattr(tarfile, kind))
    assert found(path) == expected(path) and len(found(path)) == len(NAMES)


def test_a_name_is_split_between_two_fields_of_a_ustar_header(tmp_path):
    path = write(tmp_path / 'images.tar', NAMES[:3], format=tarfile.USTAR_FORMAT)
    assert found(path) == expected(path)


def test_sizes_of_8_gigabytes_and_more_are_read(tmp_path):
    member = tarfile.TarInfo('huge.jpg')
    member.size = 9 * 2**30
    path = tmp_path / 'images.tar'
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 10 * 2**30)  # a hole, which takes no space
    assert found(path) == [('huge.jpg', 512, 9 * 2**30)]


def test_a_tar_without_an_end_mark_is_read_to_its_end(tmp_path):
    path = write(tmp_path / 'images.tar', ['a.jpg', 'b.jpg'])
    last = expected(path)[-1]
    path.write_bytes(path.read_bytes()[: last[1] + 512])
    assert found(path) == expected(path)


@pytest.mark.parametrize('keep', [100, 700, 3000, 3300])
def test_a_tar_that_is_cut_off_is_refused(tmp_path, keep):
    path = write(tmp_path / 'images.tar', ['a.jpg', 'b.jpg', 'c.jpg', 'd.jpg'])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r'images\.tar cannot be read as a tar \(it is cut off\): fetch it again'):
        index_tar(path, ['.jpg'])


def test_what_is_no_tar_is_refused(tmp_path):
    (tmp_path / 'images.tar').write_bytes(os.urandom(2000))
    with pytest.raises(UserError, match=r'images\.tar cannot be read as a tar'):
        index_tar(tmp_path / 'images.tar', ['.jpg'])


def test_a_damaged_label_is_named(tmp_path):
    path = tmp_path / 'shard.tar'
    with tarfile.open(path, 'w') as archive:
        member = tarfile.TarInfo('a.json')
        member.size = 3
        archive.addfile(member, io.BytesIO(b'{"a'))
    with pytest.raises(UserError, match=r'shard\.tar cannot be read as a tar \(its label a\.json is damaged'):
        index_tar(path, ['.jpg'])
