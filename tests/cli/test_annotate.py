"""`tokenlabel annotate` as a person runs it."""

import errno
import os
import shutil
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.child_process import ForkedCommand
from tests.commands import command, run_command
from tests.two_processes import free_port
from tokenlabel.labels.annotator.inference import Inference
from tokenlabel.labels.store import LabelStore


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    """Twelve JPEGs in three class folders, on a path with a space."""
    folder = tmp_path_factory.mktemp('data') / 'my images'
    random = np.random.default_rng(0)
    for number in range(12):
        path = folder / ('cat', 'dog', 'élan')[number % 3] / f'{number}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20 + number, 40, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    """Checkpoint of a tiny classifier into three classes."""
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    torch.manual_seed(0)
    torch.save({'state_dict': timm.create_model('test_resnet', num_classes=3).state_dict()}, path)
    return path


def command_line(images: Path, store: Path, weights: Path, *more: str) -> list[str]:
    """A run of a few images per batch on the CPU; what `more` says wins."""
    line = [images, store, '--annotator', 'test_resnet', '--checkpoint', weights, '--img-size', '64', '--k', '2']
    return [*map(str, line), '--batch-size', '2', '--workers', '0', '--device', 'cpu', *more]


def run(*arguments: str) -> int:
    """The exit status of the command."""
    return run_command('annotate', *arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_folder_becomes_a_store(images, weights, tmp_path, capsys):
    assert run(*command_line(images, tmp_path / 'store', weights)) == 0
    assert '12 maps of 2x2 cells, best 2 of 3 classes' in capsys.readouterr().out
    store = LabelStore(tmp_path / 'store')
    assert list(store.keys) == sorted(path.relative_to(images).as_posix() for path in images.rglob('*.jpg'))
    assert store.class_names == ['cat', 'dog', 'élan']
    assert store.meta['view'] == {'rule': 'squash', 'size': 64}
    assert store.meta['annotator']['name'] == 'test_resnet'


def test_an_annotator_of_few_classes_keeps_all_scores(images, weights, tmp_path, capsys):
    line = command_line(images, tmp_path / 'store', weights)
    del line[line.index('--k') : line.index('--k') + 2]
    assert run(*line) == 0
    assert 'best 3 of 3 classes' in capsys.readouterr().out


def test_a_finished_store_is_done(images, weights, tmp_path, capsys):
    run(*command_line(images, tmp_path / 'store', weights))
    before = contents(tmp_path / 'store')
    capsys.readouterr()
    assert run(*command_line(images, tmp_path / 'store', weights)) == 0
    assert 'is complete: it contains the maps of all 12 images' in capsys.readouterr().out
    assert contents(tmp_path / 'store') == before


def test_loader_workers_do_not_change_a_store(images, weights, tmp_path):
    run(*command_line(images, tmp_path / 'none', weights))
    run(*command_line(images, tmp_path / 'two', weights, '--workers', '2'))
    assert contents(tmp_path / 'none') == contents(tmp_path / 'two')


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(images, weights, tmp_path, monkeypatch):
    line, progress = command_line(images, tmp_path / 'killed', weights), tmp_path / 'killed/progress-00000'
    real, batches = Inference.__call__, []

    def stops_at_the_third(self, pixels, sizes):
        batches.append(len(pixels))
        if len(batches) == 3:
            time.sleep(60)
        return real(self, pixels, sizes)

    with monkeypatch.context() as patched:
        patched.setattr(Inference, '__call__', stops_at_the_third)
        process = ForkedCommand(tmp_path, command('annotate').main, line)
        process.wait_until(lambda: progress.exists() and progress.stat().st_size)
        process.signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert run(*line) == 0
    run(*command_line(images, tmp_path / 'straight', weights))
    assert contents(tmp_path / 'killed') == contents(tmp_path / 'straight')


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--k', '4'], "4 scores per location are more than the annotator's 3 classes"),
        (['--annotator', 'test_resnat'], 'There is no annotator test_resnat: did you mean test_resnet'),
        (['--checkpoint', 'nowhere.pth'], 'nowhere.pth'),
        (['--num-classes', '5'], 'classifies into 3 classes, not 5'),
        (['--model-kwargs', 'colour=red'], "cannot be made with {'colour': 'red'"),
        (['--img-size', '70'], 'cells of 32 pixels, which do not divide 70'),
        (['--crop-pct', '0.9'], '--crop-pct does not go with --view squash'),
        (['--class-names', 'nowhere.txt'], 'The list of classes nowhere.txt cannot be read'),
    ],
)
def test_a_wrong_flag_is_one_sentence_and_status_2(images, weights, tmp_path, capsys, more, said):
    assert run(*command_line(images, tmp_path / 'store', weights, *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert said in error
    assert not (tmp_path / 'store').exists()


def test_a_device_that_is_not_there_is_named(images, weights, tmp_path, capsys):
    assert run(*command_line(images, tmp_path / 'store', weights, '--device', 'abacus')) == 2
    assert capsys.readouterr().err.startswith('error: argument --device: abacus is not a device')


def test_no_image_folder_is_status_2(weights, tmp_path, capsys):
    assert run(*command_line(tmp_path / 'nowhere', tmp_path / 'store', weights)) == 2
    assert f'error: No image folder at {tmp_path / "nowhere"}' in capsys.readouterr().err


def test_an_empty_image_folder_is_status_2(weights, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    assert run(*command_line(tmp_path / 'empty', tmp_path / 'store', weights)) == 2
    assert f'error: No images in {tmp_path / "empty"}' in capsys.readouterr().err


def test_a_corrupt_jpeg_is_named_and_what_was_done_before_it_is_kept(weights, tmp_path, capsys):
    folder = tmp_path / 'images' / 'cat'
    folder.mkdir(parents=True)
    for number in range(4):
        Image.new('RGB', (64, 64), (number, 0, 0)).save(folder / f'{number}.jpg')
    (folder / '3.jpg').write_bytes((folder / '3.jpg').read_bytes()[:400])
    line = command_line(tmp_path / 'images', tmp_path / 'store', weights)
    assert run(*line) == 2
    assert f'{folder / "3.jpg"} cannot be read as an image (' in capsys.readouterr().err
    assert (tmp_path / 'store' / 'progress-00000').stat().st_size == 1
    Image.new('RGB', (64, 64)).save(folder / '3.jpg')
    assert run(*line) == 0


@pytest.mark.parametrize('call', ['os.pwrite', 'os.fsync'])
def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(images, weights, tmp_path, capsys, monkeypatch, call):
    line, calls = command_line(images, tmp_path / 'store', weights), []
    name = call.partition('.')[2]
    real = getattr(os, name)

    def full_after_a_while(*arguments):
        calls.append(arguments)
        if len(calls) > 10:  # of 19 syncs at least: batches that wait share one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(call, full_after_a_while)
    assert run(*line) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'error: Cannot write to {tmp_path / "store"} (No space left on device): make room')
    monkeypatch.undo()
    assert run(*line) == 0
    run(*command_line(images, tmp_path / 'straight', weights))
    assert contents(tmp_path / 'store') == contents(tmp_path / 'straight')


def test_unreadable_images_can_be_left_out_and_are_named_and_counted(images, weights, tmp_path, capsys):
    copy = shutil.copytree(images, tmp_path / 'my [own] images')
    for number in (3, 7):
        next(copy.rglob(f'{number}.jpg')).write_bytes(b'')
    line = command_line(copy, tmp_path / 'store', weights, '--on-error', 'skip')
    assert run(*line) == 0
    said = capsys.readouterr()
    for path in ('cat/3.jpg', 'dog/7.jpg'):
        assert f'skipped {copy / path} (' in said.err
    assert '12 maps of 2x2 cells, best 2 of 3 classes; 2 of them could not be read and have no map' in said.out
    assert LabelStore(tmp_path / 'store').meta['skipped'] == ['cat/3.jpg', 'dog/7.jpg']
    assert run(*line) == 0
    assert 'all 12 images; 2 of them could not be read and have no map' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('more', 'view'),
    [
        (['--view', 'center-crop'], {'rule': 'center-crop', 'size': 64, 'crop_pct': 0.95}),
        (['--view', 'center-crop', '--crop-pct', '0.5'], {'rule': 'center-crop', 'size': 64, 'crop_pct': 0.5}),
        (['--view', 'native'], {'rule': 'native', 'size': 64, 'fill': [128, 128, 128]}),
    ],
)
def test_the_view_is_recorded(images, weights, tmp_path, more, view):
    assert run(*command_line(images, tmp_path / 'store', weights, *more)) == 0
    assert LabelStore(tmp_path / 'store').meta['view'] == view


def test_flip_is_part_of_the_settings(images, weights, tmp_path, capsys):
    assert run(*command_line(images, tmp_path / 'store', weights, '--tta', 'flip')) == 0
    assert LabelStore(tmp_path / 'store').meta['annotator']['tta'] == 'flip'
    assert run(*command_line(images, tmp_path / 'store', weights)) == 2
    assert 'annotator tta flip instead of None' in capsys.readouterr().err


def test_class_names_from_a_file_win(images, weights, tmp_path):
    (tmp_path / 'names.txt').write_text('one\ntwo\nthree\n')
    assert run(*command_line(images, tmp_path / 'store', weights, '--class-names', str(tmp_path / 'names.txt'))) == 0
    assert LabelStore(tmp_path / 'store').class_names == ['one', 'two', 'three']


def test_a_tar_is_annotated_as_its_folder_is(images, weights, tmp_path):
    with tarfile.open(tmp_path / 'images.tar', 'w') as archive:
        archive.add(images, arcname='.')
    run(*command_line(images, tmp_path / 'folder', weights))
    assert run(*command_line(tmp_path / 'images.tar', tmp_path / 'tar', weights)) == 0
    assert contents(tmp_path / 'tar') == contents(tmp_path / 'folder')


def test_the_bar_shows_the_annotators_accuracy(images, weights, tmp_path, capsys):
    run(*command_line(images, tmp_path / 'store', weights))
    error = capsys.readouterr().err
    assert '12/12' in error
    assert 'top-1 ' in error


def test_two_processes_make_the_store_that_one_makes(run_tool, images, weights, tmp_path):
    more = command_line(images, tmp_path / 'two', weights, '--workers', '1')
    done = run_tool('tools/annotate.sh', '2', *more, PORT=free_port())
    assert done.returncode == 0, done.stdout + done.stderr
    # the first process may find that the other one has done it all
    assert done.stdout.count('12 maps of 2x2 cells') + done.stdout.count('it contains the maps of all 12 images') == 1
    run(*command_line(images, tmp_path / 'one', weights))
    assert contents(tmp_path / 'two') == contents(tmp_path / 'one')


def test_other_settings_for_a_begun_store_are_status_2(images, weights, tmp_path, capsys):
    run(*command_line(images, tmp_path / 'store', weights))
    capsys.readouterr()
    assert run(*command_line(images, tmp_path / 'store', weights, '--k', '3')) == 2
    assert 'begun with other settings (k 2 instead of 3)' in capsys.readouterr().err
