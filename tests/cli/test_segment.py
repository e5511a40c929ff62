"""`tokenlabel segment` as a person runs it."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.commands import run_command
from tests.segmenters import CLASSES, token_config, write_checkpoint, write_model
from tokenlabel.cli.parser import size_in_bytes
from tokenlabel.cli.segment import Segmenter

RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> list[str]:
    return write_model(tmp_path_factory.mktemp('model'))


@pytest.fixture
def images(tmp_path) -> Path:
    """A picture in a folder, one below it that shares its stem with another, and what is none."""
    folder = tmp_path / 'my images'
    (folder / 'sub').mkdir(parents=True)
    for name, size in (('a.jpg', (30, 50)), ('sub/b.png', (41, 33)), ('sub/b.webp', (20, 20))):
        Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    (folder / 'notes.txt').write_text('none')
    (folder / '.hidden.png').write_text('none')
    return folder


def run(*arguments: object) -> int:
    """The exit status of the command."""
    return run_command('segment', *arguments)


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_a_folder_keeps_its_structure(model, images, tmp_path, capsys):
    assert run(images, '--out', tmp_path / 'out', *model) == 0
    names = ['a.png', 'sub/b.png.png', 'sub/b.webp.png']
    assert written(tmp_path / 'out') == {
        'areas.csv',
        *(f'{kind}/{n}' for kind in ('overlays', 'labels') for n in names),
    }
    assert '3 images segmented.' in capsys.readouterr().out
    labels = np.array(Image.open(tmp_path / 'out/labels/a.png'))
    assert labels.shape == (30, 50) and labels.dtype == np.uint8
    rows = [row for row in table(tmp_path / 'out/areas.csv') if row['image'] == 'a.jpg']
    assert {int(row['label']): int(row['pixels']) for row in rows} == dict(
        zip(*np.unique(labels, return_counts=True), strict=True)
    )
    assert [int(row['pixels']) for row in rows] == sorted((int(row['pixels']) for row in rows), reverse=True)
    assert sum(float(row['share']) for row in rows) == pytest.approx(1, abs=1e-5)
    assert all(row['class'] == CLASSES[int(row['label'])] for row in rows)


def test_a_second_run_finds_no_images_in_its_own_results(model, images):
    for _ in range(2):
        assert run(images, '--out', images, *model) == 0
    assert len(written(images / 'labels')) == 3


def test_a_broken_image_is_named_and_the_rest_goes_on(model, images, tmp_path, capsys):
    (images / 'aa.jpg').write_bytes((images / 'a.jpg').read_bytes()[:300])
    assert run(images, '--out', tmp_path / 'out', *model) == 1
    output = capsys.readouterr()
    assert 'skipped: ' in output.err and 'aa.jpg' in output.err
    assert '3 images segmented; 1 of 4 images could not be segmented.' in output.out
    assert len(written(tmp_path / 'out')) == 7


NAMES = ('caf\udce9', 'x' * 251, 'new\nline', 'a,"b"', '-rf', '\u202eright', '\U0001f408', ' $x$ ', 'clip_2.0_001')


def test_images_of_any_name_are_segmented(model, images, tmp_path):
    for name in NAMES:
        (images / f'{name}.jpg').write_bytes((images / 'a.jpg').read_bytes())
    (images / 'A.jpg').write_bytes((images / 'a.jpg').read_bytes())
    (images / 'link').symlink_to('sub')
    (images / 'sub/loop').symlink_to('..')
    os.mkfifo(images / 'pipe.jpg')
    assert run(images, '--out', tmp_path / 'out', *model) == 0
    assert {f'{name}.png' for name in NAMES} <= written(tmp_path / 'out/labels')
    assert len(written(tmp_path / 'out/labels')) == len(NAMES) + 4 + 2
    named = {row['image'] for row in table(tmp_path / 'out/areas.csv')}
    assert {f'{name}.jpg' for name in NAMES[1:]} | {'caf\\xe9.jpg', 'a.jpg', 'A.jpg', 'link/b.png'} <= named


def test_a_pipe_instead_of_an_image_is_not_waited_for(model, tmp_path, capsys):
    os.mkfifo(tmp_path / 'x.jpg')
    assert run(tmp_path / 'x.jpg', '--out', tmp_path / 'out', *model) == 2
    assert 'x.jpg is not a regular file' in capsys.readouterr().err


def test_a_video_whose_name_is_no_utf_8_is_refused(model, tmp_path, capsys):
    (tmp_path / 'caf\udce9.mp4').write_bytes(b'')
    assert run(tmp_path / 'caf\udce9.mp4', '--out', tmp_path / 'out', *model) == 2
    assert 'has a name that is not UTF-8' in capsys.readouterr().err


def test_one_image_and_some_classes(model, images, tmp_path):
    assert run(images / 'a.jpg', '--out', tmp_path / 'all', *model) == 0
    largest = table(tmp_path / 'all/areas.csv')[0]
    assert run(images / 'a.jpg', '--out', tmp_path / 'out', *model, '--classes', largest['class']) == 0
    assert table(tmp_path / 'out/areas.csv') == [largest]
    assert (tmp_path / 'out/labels/a.png').read_bytes() == (tmp_path / 'all/labels/a.png').read_bytes()


def test_a_video(model, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'v.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 49))
    for _ in range(4):
        writer.write(RNG.integers(0, 256, (49, 64, 3), np.uint8))
    writer.release()
    assert run(tmp_path / 'v.avi', '--out', tmp_path / 'out', *model, '--memory-limit', 'none') == 0
    assert written(tmp_path / 'out') == {'v.mp4', 'v.csv'}
    film = cv2.VideoCapture(str(tmp_path / 'out/v.mp4'))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and film.get(cv2.CAP_PROP_FPS) == 10
    assert film.get(cv2.CAP_PROP_FRAME_WIDTH) > 64
    rows = table(tmp_path / 'out/v.csv')
    assert {(row['frame'], row['seconds']) for row in rows} == {(str(i), f'{i / 10:.3f}') for i in range(4)}


@pytest.mark.parametrize(
    ('make', 'more', 'sentence'),
    [
        (None, (), 'does not exist: give an image'),
        ('empty', (), 'has no images'),
        ('broken.mp4', (), 'is damaged or not a video'),
        ('a.jpg', ('--alpha', '1.5'), 'argument --alpha: 1.5 is not between 0 and 1'),
        ('a.jpg', ('--classes', 'lake'), '--classes: the model has no class lake, choose from digit 0, digit 1'),
        ('a.jpg', ('--memory-limit', 'lots'), "'lots' is not a size: give a size such as 800M or 4G, or none"),
        ('a.jpg', ('--max-side', '0'), 'argument --max-side: 0 is not from 1 on'),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(model, images, tmp_path, capsys, make, more, sentence):
    source = images / make if make == 'a.jpg' else tmp_path / (make or 'nowhere')
    if make == 'empty':
        source.mkdir()
    elif make == 'broken.mp4':
        source.write_bytes(b'none')
    assert run(source, '--out', tmp_path / 'out', *model, *more) == 2
    assert sentence in capsys.readouterr().err
    assert not written(tmp_path / 'out') if (tmp_path / 'out').exists() else True


def test_an_interrupted_run_leaves_the_older_table_whole(model, images, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    assert run(images / 'a.jpg', '--out', out, *model) == 0
    before = (out / 'areas.csv').read_bytes()

    def interrupt(self, image):
        raise KeyboardInterrupt

    monkeypatch.setattr(Segmenter, '__call__', interrupt)
    assert run(images, '--out', out, *model) == 130
    assert (out / 'areas.csv').read_bytes() == before
    assert not [name for name in written(out) if 'tmp' in name]


@pytest.mark.parametrize(('text', 'size'), [('800M', 800 * 2**20), ('2.5 GiB', 5 * 2**29), ('7', 7), ('none', None)])
def test_sizes(text, size):
    assert size_in_bytes(text) == size


def test_a_model_of_tokens_segments_on_the_default_device(images, tmp_path):
    config = token_config()
    config.dump(tmp_path / 'config.py')
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    arguments = ['--config', tmp_path / 'config.py', '--checkpoint', checkpoint, '--out', tmp_path / 'out']
    assert run(images, *arguments) == 0
    assert len(written(tmp_path / 'out')) == 7
