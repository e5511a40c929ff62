"""What tools write: tried before the work, one sentence on a full disk, nothing half-written."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.commands import command, run_command
from tests.full_disks import full_disk
from tests.segmenters import CLASSES, write_model

RNG = np.random.default_rng(0)


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}


def sentence(capsys) -> str:
    """The one error that was printed."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> list[str]:
    return write_model(tmp_path_factory.mktemp('model'))


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / 'images'
    folder.mkdir()
    for name in 'ab':
        Image.fromarray(RNG.integers(0, 256, (120, 160, 3), np.uint8)).save(folder / f'{name}.png')
    return folder


@pytest.fixture
def video(tmp_path) -> Path:
    writer = cv2.VideoWriter(str(tmp_path / 'v.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for _ in range(30):
        writer.write(RNG.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return tmp_path / 'v.avi'


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    torch.save({'state_dict': timm.create_model('test_resnet', num_classes=3).state_dict()}, path)
    return path


def occupy(out: Path, occupied: str) -> None:
    """Puts a folder where the file `occupied` goes, or a file where the folder `occupied/` goes."""
    path = out / occupied.rstrip('/')
    path.parent.mkdir(parents=True, exist_ok=True)
    if occupied.endswith('/'):
        path.touch()
    else:
        path.mkdir()


@pytest.mark.parametrize('occupied', ['areas.csv', 'overlays/', 'labels/', ''])
def test_segment_tries_its_outputs_before_it_loads_a_model(model, images, tmp_path, capsys, monkeypatch, occupied):
    out = tmp_path / 'out'
    occupy(out, occupied) if occupied else out.touch()
    monkeypatch.setattr(command('segment'), 'Segmenter', None)
    assert run_command('segment', images, '--out', out, *model) == 2
    assert str(out) in sentence(capsys)


@pytest.mark.parametrize('occupied', ['v.mp4', 'v.csv'])
def test_segment_tries_the_outputs_of_a_video(model, video, tmp_path, capsys, monkeypatch, occupied):
    out = tmp_path / 'out'
    occupy(out, occupied)
    monkeypatch.setattr(command('segment'), 'Segmenter', None)
    assert run_command('segment', video, '--out', out, *model) == 2
    assert f'{occupied} is a folder: give the name of a file' in sentence(capsys)


def test_a_video_does_not_replace_itself(model, video, tmp_path, capsys):
    film = video.rename(tmp_path / 'v.mp4')
    before = film.read_bytes()
    assert run_command('segment', film, '--out', tmp_path, *model) == 2
    assert 'would overwrite the video itself' in sentence(capsys)
    assert film.read_bytes() == before


@pytest.mark.parametrize('largest', [0, 30_000])
def test_segment_on_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    model, images, tmp_path, capsys, largest
):
    out = tmp_path / 'out'
    with full_disk(largest):
        assert run_command('segment', images, '--out', out, *model) == 2
    assert sentence(capsys).startswith(f'error: Cannot write to {out}')
    assert written(out) <= {'labels/a.png'}


def test_a_video_on_a_full_disk_is_one_sentence_although_opencv_says_nothing(model, video, tmp_path, capsys):
    out = tmp_path / 'out'
    with full_disk(20_000):
        assert run_command('segment', video, '--out', out, *model, '--classes', CLASSES[0]) == 2
    assert sentence(capsys).startswith(f'error: Cannot write to {out}/v.')
    assert written(out) == set()


@pytest.mark.parametrize('target', ['', 'file/new.pth', 'n' * 256])
def test_convert_tries_its_target_before_it_reads(weights, tmp_path, capsys, monkeypatch, target):
    (tmp_path / 'file').touch()
    monkeypatch.setattr(command('convert'), 'read_weights', None)
    assert run_command('convert', weights, tmp_path / target, '--to', 'timm') == 2
    assert str(tmp_path) in sentence(capsys)


def test_convert_on_a_full_disk_is_one_sentence_and_keeps_what_was_there(weights, tmp_path, capsys):
    (tmp_path / 'new.pth').write_text('older')
    with full_disk(8192):
        assert run_command('convert', weights, tmp_path / 'new.pth', '--to', 'timm') == 2
    assert sentence(capsys).startswith(f'error: Cannot write to {tmp_path / "new.pth"} (File too large): make room')
    assert (tmp_path / 'new.pth').read_text() == 'older'
    assert os.listdir(tmp_path) == ['new.pth']


@pytest.mark.parametrize(
    ('out', 'said'),
    [
        ('', 'is a folder: give the name of a file'),
        ('file/labels.png', 'file is a file, but a folder is needed'),
        ('labels', 'does not have the suffix of a picture: end its name with .png, .pdf'),
        ('labels.xyz', 'does not have the suffix of a picture'),
        ('labels.txt', 'does not have the suffix of a picture'),
    ],
)
def test_view_tries_its_picture_before_it_reads(tmp_path, capsys, monkeypatch, out, said):
    (tmp_path / 'file').touch()
    out = tmp_path / out if out else tmp_path / 'folder.png'
    if out.name == 'folder.png':
        out.mkdir()
    monkeypatch.setattr(command('labels'), 'LabelStore', None)
    assert run_command('labels', 'view', 'store', 'a.jpg', '--images', 'images', '--out', out) == 2
    assert said in sentence(capsys)


def test_view_on_a_full_disk_is_one_sentence(label_store, scenes, tmp_path, capsys):
    from tokenlabel.labels.store import LabelStore

    key, images = LabelStore(label_store).keys[0], scenes / 'imagenet/train'
    with full_disk(4096):
        assert run_command('labels', 'view', label_store, key, '--images', images, '--out', tmp_path / 'v.png') == 2
    assert sentence(capsys).startswith(f'error: Cannot write to {tmp_path / "v.png"} (File too large)')
    assert written(tmp_path) == set()


def test_an_export_to_a_file_is_told_before_it_begins(label_store, tmp_path, capsys):
    (tmp_path / 'file').touch()
    assert run_command('labels', 'export-release', label_store, tmp_path / 'file') == 2
    assert 'file is a file, but a folder is needed' in sentence(capsys)


def test_a_demo_tries_its_work_dir_before_it_begins(tmp_path, capsys):
    (tmp_path / 'file').touch()
    for more in ([], ['--compare'], ['--families']):
        assert run_command('demo', '--smallest', '--work-dir', tmp_path / 'file/demo', *more) == 2
        assert 'file is a file, but a folder is needed' in sentence(capsys)


def test_demo_scenes_on_a_full_disk_are_one_sentence_and_leave_nothing(tmp_path, capsys):
    with full_disk(256):
        assert run_command('demo', '--smallest', '--work-dir', tmp_path / 'demo') == 2
    assert sentence(capsys).startswith(f'error: Cannot write to {tmp_path / "demo"} (File too large)')
    assert written(tmp_path) == set()


def test_annotate_to_a_file_is_told(tmp_path, images, weights, capsys):
    (tmp_path / 'file').touch()
    line = ['--annotator', 'test_resnet', '--checkpoint', weights, '--img-size', 64, '--k', 2, '--device', 'cpu']
    for store in ('file', 'file/store'):
        assert run_command('annotate', images, tmp_path / store, *line) == 2
        assert str(tmp_path / 'file') in sentence(capsys)
