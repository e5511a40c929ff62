"""Outputs are tried before the work, and nothing of the trial remains."""

import builtins
import errno
import os

import pytest

from tokenlabel.errors import UserError
from tokenlabel.files.output_checks import check_output_file, check_output_folder

CHECKS = (check_output_file, check_output_folder)


def tree(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*'))


@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('name', ['new', 'a/b/new', 'n' * 255])
def test_what_can_be_made_passes_and_is_not_made_yet(tmp_path, check, name):
    check(tmp_path / name)
    assert tree(tmp_path) == []


def test_what_is_there_stays_as_it_is(tmp_path):
    (tmp_path / 'scores.json').write_text('older')
    check_output_file(tmp_path / 'scores.json')
    check_output_folder(tmp_path)
    assert (tmp_path / 'scores.json').read_text() == 'older'
    assert tree(tmp_path) == ['scores.json']


def test_a_name_in_the_present_folder_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_output_file('scores.json')
    check_output_folder('work_dirs')


def test_the_wrong_kind_is_told(tmp_path):
    (tmp_path / 'file').touch()
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'dangling').symlink_to(tmp_path / 'nowhere/file')
    with pytest.raises(UserError, match='is a folder: give the name of a file to write'):
        check_output_file(tmp_path)
    with pytest.raises(UserError, match='pipe is not a regular file'):
        check_output_file(tmp_path / 'pipe')
    with pytest.raises(UserError, match='/dev/null is not a regular file'):
        check_output_file('/dev/null')
    for path in ('file', 'file/below', 'dangling', 'dangling/below'):
        with pytest.raises(UserError, match=r'(file|dangling) is a file, but a folder is needed: give another folder'):
            check_output_folder(tmp_path / path)
    with pytest.raises(UserError, match='file is a file, but a folder is needed'):
        check_output_file(tmp_path / 'file/scores.json')


@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('name', ['n' * 256, 'new/' + 'n' * 256, 'é' * 128])
def test_a_name_longer_than_names_can_be_is_found_before(tmp_path, check, name):
    with pytest.raises(UserError, match=r'Cannot write to .* \(File name too long\)'):
        check(tmp_path / name)
    assert tree(tmp_path) == []


@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('code', [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_place_that_takes_no_file_is_found_before(tmp_path, monkeypatch, check, code):
    def refuse(path, mode='r', *rest, **options):
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(builtins, 'open', refuse)
        with pytest.raises(UserError) as error:
            check(tmp_path / 'new/output')
    assert str(error.value).startswith(f'Cannot write to {tmp_path / "new/output"} ({os.strerror(code)}): make room')
    assert tree(tmp_path) == []


def test_a_disk_that_is_full_when_the_trial_is_written_is_found_before(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match='No space left on device'):
        check_output_folder(tmp_path)
    assert tree(tmp_path) == []


def test_a_file_that_must_not_be_written_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / 'kept.json').touch()
    monkeypatch.setattr(os, 'access', lambda path, mode: False)  # root may always
    with pytest.raises(UserError, match=r'kept.json \(Permission denied\)'):
        check_output_file(tmp_path / 'kept.json')


def test_a_suffix_that_is_no_picture_is_told(tmp_path):
    for name in ('labels', 'labels.txt', 'labels.xyz', '.png'):
        with pytest.raises(UserError, match=r'does not have the suffix of a picture: end its name with \.png or \.pdf'):
            check_output_file(tmp_path / name, ('.png', '.pdf'))
    check_output_file(tmp_path / 'labels.PNG', ('.png', '.pdf'))
