"""A disk that is full or read-only is one sentence, whatever writes to the work dir."""

import errno
import logging
from pathlib import Path

import mmengine.runner.runner
import pytest

from tests.engine.resuming.interruptions import RANDOM
from tokenlabel.engine.run_folder import folder_errors, raise_in_log_files
from tokenlabel.errors import UserError


@pytest.mark.parametrize(
    ('number', 'file'),
    [
        (errno.ENOSPC, None),
        (errno.EDQUOT, None),
        (errno.EROFS, '{}/run.log'),
        (errno.EACCES, '{}'),
        (errno.EACCES, '{}/..'),
        (errno.EEXIST, '{}'),
        (errno.EIO, '{}/vis_data/scalars.json'),
    ],
)
def test_what_the_disk_refuses_is_one_sentence(tmp_path, number, file):
    error = OSError(number, 'it cannot be', file and str(Path(file.format(tmp_path)).resolve()))
    with pytest.raises(UserError) as said, folder_errors(tmp_path):
        raise error
    assert str(said.value).startswith(f'Cannot write to {error.filename or tmp_path} (it cannot be): make room')
    assert '\n' not in str(said.value)


@pytest.mark.parametrize(
    'error', [FileNotFoundError(errno.ENOENT, 'no', '/elsewhere/x'), BrokenPipeError(), KeyError()]
)
def test_other_errors_are_what_they_are(tmp_path, error):
    with pytest.raises(type(error)), folder_errors(tmp_path):
        raise error


def test_a_log_line_that_cannot_be_written_is_an_error(tmp_path):
    logger = logging.Logger('full')
    logger.addHandler(logging.FileHandler('/dev/full'))
    raise_in_log_files(logger)
    with pytest.raises(UserError, match='No space left on device'), folder_errors(tmp_path):
        logger.warning('a line')
    logger.handlers[0].stream = None  # which would be written once more when it is closed


@pytest.mark.parametrize('place', ['', 'file/below'])
def test_a_work_dir_that_cannot_be_is_one_sentence(make_runner, tmp_path, place):
    (tmp_path / 'file').touch()
    work_dir = tmp_path / (place or 'file')
    with pytest.raises(UserError, match=f'Cannot write to {work_dir}'):
        make_runner(work_dir=str(work_dir))


def test_a_full_disk_leaves_the_checkpoints_before_and_no_part_of_one(make_runner, tmp_path, monkeypatch):
    original = mmengine.runner.runner.save_checkpoint

    def fills_the_disk(checkpoint: dict, path: str, **options) -> None:
        original(checkpoint, path, **options)
        if 'iter_4' in path:
            raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(mmengine.runner.runner, 'save_checkpoint', fills_the_disk)
    keeping = {'default_hooks.checkpoint.max_keep_ckpts': 1, 'default_hooks.checkpoint.save_best': None}
    runner = make_runner(6, **RANDOM | keeping)
    with pytest.raises(UserError, match=r'Cannot write to .*iter_4\.pth \(No space left on device\): make room'):
        runner.train()
    assert [path.name for path in Path(runner.work_dir).glob('*.pth*')] == ['iter_2.pth']
    assert Path(runner.work_dir, 'last_checkpoint').read_text() == 'iter_2.pth'
