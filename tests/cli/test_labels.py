"""`tokenlabel labels` as a person runs it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.commands import run_command
from tests.label_stores import write_store
from tokenlabel.cli.labels import crop_targets
from tokenlabel.labels.store import LabelStore


def run(*arguments: object) -> int:
    """The exit status of the command."""
    return run_command('labels', *arguments)


@pytest.fixture
def images(scenes) -> Path:
    return scenes / 'imagenet/train'


def test_info_tells_what_a_store_holds(label_store, capsys):
    assert run('info', label_store) == 0
    told = capsys.readouterr().out
    assert 'images       40, of which 40 have a map' in told
    assert 'maps         8x8 cells, best 3 of ' in told
    assert '% of the cells name their image' in told
    assert '█' in told


def test_info_of_no_store_is_one_sentence(tmp_path, capsys):
    assert run('info', tmp_path / 'nowhere') == 2
    assert 'No label store at' in capsys.readouterr().err


def test_verify_finds_a_sound_store_sound(label_store, images, capsys):
    assert run('verify', label_store, '--images', images) == 0
    assert 'is intact' in capsys.readouterr().out


def test_verify_prints_problems_and_fails(label_store, scenes, capsys):
    assert run('verify', label_store, '--images', scenes / 'imagenet/val') == 1
    assert f'{label_store} has no maps of 23 images' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('file', 'data'), [('meta.json', b'[' * 200_000), ('meta.json', b''), ('keys.npy', b''), ('scores-00000.npy', b'')]
)
def test_a_damaged_store_is_a_line_of_verify_and_a_sentence_of_all_else(
    label_store, images, tmp_path, capsys, file, data
):
    store = shutil.copytree(label_store, tmp_path / 'store')
    (store / file).write_bytes(data)
    assert run('verify', store, '--images', images) == 1
    assert str(store / file) in capsys.readouterr().out
    key, out = LabelStore(label_store).keys[0], tmp_path / 'out'
    for line in (
        ['info', store],
        ['view', store, key, '--images', images, '--out', tmp_path / 'maps.png'],
        ['export-release', store, out],
        ['merge', out, label_store, store],
        ['subset', store, out, '--classes', 'digit_0'],
    ):
        assert run(*line) == 2
        said = capsys.readouterr().err
        assert said.startswith('error: ') and said.count('\n') == 1 and str(store / file) in said
        assert not out.exists()


def test_verify_says_that_the_record_of_an_earlier_version_has_no_checksum(label_store, tmp_path, capsys):
    store = shutil.copytree(label_store, tmp_path / 'store')
    (store / 'meta.json').write_text(json.dumps(LabelStore(label_store).meta))
    assert run('verify', store) == 0
    assert 'is intact.' in (said := capsys.readouterr().out)
    assert 'meta.json has no checksum of itself, because an earlier version wrote it.' in said


def test_a_name_that_is_no_utf_8_is_printed_as_it_can_be(tmp_path, capsys):
    store = write_store(tmp_path / 'store', ['caf\udce9.jpg'], 3, k=2, grid=2, skipped=['caf\udce9.jpg'])
    assert run('info', store.path) == 0
    assert 'caf\\udce9.jpg' in capsys.readouterr().out


def test_a_store_goes_out_and_comes_back(label_store, images, tmp_path, capsys):
    store = LabelStore(label_store)
    assert run('export-release', label_store, tmp_path / 'files') == 0
    options = ['--images', images, '--num-classes', store.num_classes, '--workers', 0, '--size', 64]
    assert run('import-release', tmp_path / 'files', tmp_path / 'again', *options) == 0
    assert '40 maps of 8x8 cells, view center-crop' in capsys.readouterr().out
    again = LabelStore(tmp_path / 'again')
    assert again.meta['view'] == {'rule': 'center-crop', 'size': 64, 'crop_pct': 1.0}
    assert (again[3].classes == store[3].classes).all()


def test_an_import_without_images_says_what_it_lacks(tmp_path, capsys):
    assert run('import-release', tmp_path, tmp_path / 'store') == 2
    assert 'give the images with --images, or choose --view squash' in capsys.readouterr().err


def test_parts_of_a_store_merge_into_what_it_was(label_store, images, tmp_path, capsys):
    store = LabelStore(label_store)
    (tmp_path / 'keys.txt').write_text('\n'.join(store.keys[:15]) + '\n')
    for folder in {key.split('/')[0] for key in store.keys[15:]}:
        (tmp_path / 'rest' / folder).mkdir(parents=True)
    for key in store.keys[15:]:
        (tmp_path / 'rest' / key).symlink_to(images / key)
    assert run('subset', label_store, tmp_path / 'one', '--keys', tmp_path / 'keys.txt') == 0
    assert run('subset', label_store, tmp_path / 'two', '--images', tmp_path / 'rest') == 0
    assert run('merge', tmp_path / 'both', tmp_path / 'two', tmp_path / 'one') == 0
    assert '15 of 40 images' in capsys.readouterr().out
    both = {file.name: file.read_bytes() for file in (tmp_path / 'both').iterdir()}
    assert both == {file.name: file.read_bytes() for file in label_store.iterdir()}


def test_a_subset_may_be_of_classes(label_store, tmp_path):
    folder = LabelStore(label_store).keys[0].split('/')[0]
    assert run('subset', label_store, tmp_path / 'part', '--classes', folder) == 0
    assert {key.split('/')[0] for key in LabelStore(tmp_path / 'part').keys} == {folder}


def test_a_key_file_that_is_not_there_is_one_sentence(label_store, tmp_path, capsys):
    assert run('subset', label_store, tmp_path / 'part', '--keys', tmp_path / 'nowhere') == 2
    assert 'nowhere cannot be read (no such file or directory)' in capsys.readouterr().err


@pytest.fixture(scope='module')
def checked(tmp_path_factory) -> dict[str, Path]:
    """Images of unequal sides, weights of an annotator, and what it exports of them."""
    folder = tmp_path_factory.mktemp('checked')
    rng = np.random.default_rng(0)
    for number in range(12):
        path = folder / 'images' / ('ab'[number % 2]) / f'{number}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        patches = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        patches.resize((160, 80) if number % 2 else (70, 150), Image.Resampling.BICUBIC).save(path)
    torch.manual_seed(0)
    torch.save(timm.create_model('test_resnet', num_classes=2).state_dict(), folder / 'weights.pth')
    torch.save(timm.create_model('test_vit', num_classes=10).state_dict(), folder / 'vit.pth')
    paths = {
        'images': folder / 'images',
        'weights': folder / 'weights.pth',
        'files': folder / 'files',
        'vit': folder / 'vit.pth',
    }
    line = [paths['images'], folder / 'store', '--annotator', 'test_resnet', '--checkpoint', paths['weights']]
    line += ['--img-size', 160, '--k', 2, '--workers', 0, '--device', 'cpu', '--precision', 'fp32']
    assert run_command('annotate', *line) == 0
    assert run('export-release', folder / 'store', paths['files']) == 0
    return paths


@pytest.mark.parametrize(
    ('options', 'status', 'told'),
    [
        (['--view', 'squash'], 0, 'has the geometry in its metadata: whole image, upright.'),
        (['--view', 'squash', '--transposed'], 1, 'import them again with --view squash and without --transposed.'),
        (['--view', 'center-crop'], 1, 'import them again with --view squash and without --transposed.'),
    ],
)
def test_a_geometry_is_checked_against_the_record(checked, tmp_path, capsys, options, status, told):
    line = ['--images', checked['images'], '--num-classes', 2, '--size', 160, '--workers', 0, *options]
    assert run('import-release', checked['files'], tmp_path / 'store', *line) == 0
    annotator = ['--annotator', 'test_resnet', '--checkpoint', checked['weights'], '--device', 'cpu']
    assert run('check-geometry', tmp_path / 'store', checked['images'], *annotator) == status
    assert told in capsys.readouterr().out


def test_view_draws_maps_and_what_a_crop_gets(label_store, images, tmp_path, capsys):
    keys = LabelStore(label_store).keys[:2]
    crop = ['--crop', '0.5,0,0.5,0.5', '--grid', 4]
    assert run('view', label_store, *keys, '--images', images, '--out', tmp_path / 'new/maps.png', *crop) == 0
    assert str(tmp_path / 'new/maps.png') in capsys.readouterr().out
    with Image.open(tmp_path / 'new/maps.png') as picture:
        assert picture.width > 1000


def test_the_targets_of_a_crop_are_those_of_its_cells(label_store):
    label_map = LabelStore(label_store)[0]
    targets = crop_targets(label_map, (0.5, 0, 0.5, 0.5), 4, num_classes=10)
    assert targets.shape == (4, 4, 10)
    np.testing.assert_array_equal(targets.argmax(-1), label_map.classes[0, :4, 4:])


@pytest.mark.parametrize('crop', ['0,0,1', '0.5,0,0.6,1', '0,0,0,1', '-0.1,0,1,1', 'a,b,c,d'])
def test_a_crop_beyond_the_image_is_refused(label_store, images, tmp_path, crop, capsys):
    out = tmp_path / 'maps.png'
    assert run('view', label_store, 'x.jpg', '--images', images, '--out', out, f'--crop={crop}') == 2
    assert 'argument --crop: ' in capsys.readouterr().err


def test_an_unknown_image_is_named_with_an_example(label_store, images, tmp_path, capsys):
    assert run('view', label_store, 'x.jpg', '--images', images, '--out', tmp_path / 'maps.png') == 2
    assert f'for example {LabelStore(label_store).keys[0]}' in capsys.readouterr().err


@pytest.mark.parametrize('option', ['--crop-pct=0', '--crop-pct=1.1', '--samples=0', '--img-size=0', '--device=pc'])
def test_values_that_make_no_sense_are_refused(option, label_store, images, capsys):
    assert run('check-geometry', label_store, images, '--annotator', 'test_resnet', option) == 2
    assert f'argument {option.partition("=")[0]}' in capsys.readouterr().err


def test_an_annotator_that_does_not_take_the_store_s_size_is_refused(checked, label_store, images, capsys):
    options = ['--annotator', 'test_vit', '--checkpoint', checked['vit'], '--img-size', 150]
    assert run('check-geometry', label_store, images, *options) == 2
    assert '150' in capsys.readouterr().err
