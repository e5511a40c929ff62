"""Score maps of the 2021 release in and out."""

import os
import shutil
import signal
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.readers import create_reader
from torch.utils.data import get_worker_info

from tests.label_stores import store_of, write_store
from tokenlabel.errors import UserError
from tokenlabel.labels.maintenance.release import export_release, import_release
from tokenlabel.labels.maintenance.release_archive import stems
from tokenlabel.labels.store import LabelStore, LabelWriter
from tokenlabel.labels.view_rule import CenterCrop, Squash

NAMES = ['ant/x_1', 'ant/x_2', 'bee/x_1', 'bee/y_7', 'cow/z']


def released_map(number: int, k: int = 3, side: int = 4, num_classes: int = 7) -> torch.Tensor:
    """Maps that differ in every row and column."""
    generator = torch.Generator().manual_seed(number)
    scores = torch.randn(k, side, side, generator=generator).sort(0, descending=True).values
    ids = torch.rand(num_classes, side, side, generator=generator).argsort(0)[:k]
    return torch.stack([scores.half(), ids.half()])


@pytest.fixture
def maps(tmp_path) -> Path:
    folder = tmp_path / 'label maps' / 'top5'
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(released_map(number), folder / f'{name}.pt')
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    for number, name in enumerate(NAMES):
        path = tmp_path / 'images' / f'{name}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (30 + number, 40)).save(path)
    return tmp_path / 'images'


def packed(maps: Path, kind: str) -> Path:
    """The folder as it is, or its parent in an archive."""
    target = maps.parents[1] / f'maps.{kind}'
    if kind == 'folder':
        return maps
    if kind == 'tar':
        with tarfile.open(target, 'w') as tar:
            tar.add(maps, 'data/top5')
    else:
        with zipfile.ZipFile(
            target, 'w', zipfile.ZIP_DEFLATED if kind == 'deflated.zip' else zipfile.ZIP_STORED
        ) as file:
            for path in maps.rglob('*'):
                file.write(path, f'top5/{path.relative_to(maps)}')
    return target


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob('*') if file.is_file()}


def imported(source: Path, store: Path, rule=None, **options) -> LabelStore:
    return import_release(source, store, rule or Squash(32), num_classes=7, **options)


@pytest.mark.parametrize('kind', ['folder', 'tar', 'stored.zip', 'deflated.zip'])
def test_every_container_gives_the_same_store(maps, kind, tmp_path):
    store = imported(packed(maps, kind), tmp_path / 'store')
    assert list(store.keys) == [f'{name}.JPEG' for name in NAMES]
    for number in range(5):
        scores, ids = released_map(number)
        np.testing.assert_array_equal(store[number].scores, scores)
        np.testing.assert_array_equal(store[number].classes, ids)


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['a/x.pt'], ['a/x']),
        (['x.pt', 'y.pt'], ['x', 'y']),
        (['maps/a/x.pt', 'maps/a/y.pt'], ['a/x', 'a/y']),
        (['data/maps/b/x.pt', 'data/maps/a/x.pt'], ['b/x', 'a/x']),
        (['train/a/x.pt', 'val/a/y.pt'], ['train/a/x', 'val/a/y']),
        (['maps/a/x.pt', 'maps/a/b/x.pt'], ['a/x', 'a/b/x']),
        (['maps/x.pt', 'maps/a/x.pt'], ['maps/x', 'maps/a/x']),
    ],
)
def test_folders_that_all_maps_share_are_no_part_of_their_names(names, expected):
    assert stems(SimpleNamespace(names=names)) == expected


def test_files_of_older_torch_versions_are_read(maps, tmp_path):
    torch.save(released_map(2), maps / 'bee/x_1.pt', _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(imported(maps, tmp_path / 'store')[2].scores, released_map(2)[0])


def test_with_images_keys_sizes_and_views_are_theirs(maps, images, tmp_path):
    reader = create_reader('', str(images))
    store = imported(maps, tmp_path / 'store', CenterCrop(32), reader=reader)
    assert [store.size(row) for row in range(5)] == [(30 + row, 40) for row in range(5)]
    np.testing.assert_array_equal(store[2].view.matrix, CenterCrop(32).view(32, 40).matrix)
    assert store.indices(reader.filenames()).tolist() == [0, 1, 2, 3, 4]
    assert store.meta['annotator']['name'] == 'dm_nfnet_f6 (release)'


def test_classes_are_named_after_the_folders_of_the_images_if_there_are_as_many(maps, images, tmp_path):
    for path in maps.rglob('*.pt'):
        torch.save(released_map(1, num_classes=3), path)
    reader = create_reader('', str(images))
    store = import_release(maps, tmp_path / 'store', Squash(32), num_classes=3, reader=reader)
    assert store.class_names == ['ant', 'bee', 'cow']


def test_a_thousand_classes_are_those_of_imagenet(maps, tmp_path):
    names = import_release(maps, tmp_path / 'store', Squash(32)).class_names
    assert (len(names), names[0]) == (1000, 'n01440764')


def test_a_centre_crop_needs_the_images(maps, tmp_path):
    with pytest.raises(UserError, match='depends on the width and height of each image: give the images'):
        imported(maps, tmp_path / 'store', CenterCrop(32))


def test_transposed_maps_are_put_upright(maps, tmp_path):
    store = imported(maps, tmp_path / 'store', transposed=True)
    scores, ids = released_map(3)
    np.testing.assert_array_equal(store[3].scores, scores.transpose(1, 2))
    np.testing.assert_array_equal(store[3].classes, ids.transpose(1, 2))


def test_the_best_class_is_put_first(maps, tmp_path):
    torch.save(released_map(1).flip(1), maps / 'ant/x_2.pt')
    np.testing.assert_array_equal(imported(maps, tmp_path / 'store')[1].scores, released_map(1)[0])


@pytest.mark.parametrize('workers', [0, 2])
def test_an_import_that_was_stopped_goes_on(maps, tmp_path, workers):
    imported(maps, tmp_path / 'straight', workers=workers)
    with mock.patch.object(LabelWriter, 'finalise', side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        imported(maps, tmp_path / 'stopped')
    seen = []
    imported(maps, tmp_path / 'stopped', on_batch=lambda count, total: seen.append((count, total)))
    assert seen == [(5, 5)]
    assert contents(tmp_path / 'stopped') == contents(tmp_path / 'straight')


def test_what_another_process_leaves_is_taken_over(maps, tmp_path):
    straight = imported(maps, tmp_path / 'straight')
    settings = {name: straight.meta[name] for name in ('annotator', 'num_classes', 'k', 'grid', 'view')}
    other = LabelWriter(tmp_path / 'store', straight.keys[:], **settings)
    next(other.batches())

    def die(seconds):
        other.close()

    with mock.patch('time.sleep', side_effect=die) as slept:
        imported(maps, tmp_path / 'store')
    assert slept.call_count == 1
    assert contents(tmp_path / 'store') == contents(tmp_path / 'straight')


def test_a_worker_that_dies_is_one_sentence(maps, images, tmp_path):
    class Deadly:
        class_to_idx: ClassVar = {}
        filenames = staticmethod(lambda: [f'{name}.JPEG' for name in NAMES])
        filename = staticmethod(lambda index, **_: f'{NAMES[index]}.JPEG')

        def __getitem__(self, index):
            if get_worker_info() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return open(images / f'{NAMES[index]}.JPEG', 'rb'), 0

    with pytest.raises(UserError, match=r'died.*choose fewer --workers, then run again to resume'):
        imported(maps, tmp_path / 'store', reader=Deadly(), workers=1)


def test_a_compressed_tar_is_refused_with_the_command_that_unpacks_it(maps, tmp_path):
    source = packed(maps, 'tar')
    with tarfile.open(tmp_path / 'maps.tar.gz', 'w:gz') as tar:
        tar.add(source)
    with pytest.raises(UserError, match=r'compressed as a whole \(gzip\).*tar -xf .*maps\.tar\.gz'):
        imported(tmp_path / 'maps.tar.gz', tmp_path / 'store')


@pytest.mark.parametrize('kind', ['tar', 'stored.zip', 'deflated.zip'])
@pytest.mark.parametrize('share', [0.01, 0.3, 0.5, 0.65])
def test_a_truncated_archive_is_refused(maps, kind, share, tmp_path):
    source = packed(maps, kind)
    os.truncate(source, int(share * source.stat().st_size))
    with pytest.raises(UserError, match='is not a tar or zip, or is damaged'):
        imported(source, tmp_path / 'store')


def test_a_zip_of_an_unusual_compression_is_refused(maps, tmp_path):
    with zipfile.ZipFile(tmp_path / 'maps.zip', 'w', zipfile.ZIP_BZIP2) as file:
        file.write(maps / 'cow/z.pt', 'cow/z.pt')
    with pytest.raises(UserError, match=r'cow/z\.pt is encrypted or compressed in an unusual way'):
        imported(tmp_path / 'maps.zip', tmp_path / 'store')


def test_a_damaged_member_of_a_zip_is_named(maps, tmp_path):
    source = packed(maps, 'stored.zip')
    data = bytearray(source.read_bytes())
    data[data.index(b'top5/cow/z.pt') + 700] ^= 1
    source.write_bytes(data)
    with pytest.raises(UserError, match=r'top5/cow/z\.pt cannot be read as a score map \(its checksum differs\)'):
        imported(source, tmp_path / 'store')


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'PK nothing', 'cannot be read as a score map'),
        ({'a': 1}, 'is not a released score map, .*, but dict'),
        (released_map(0)[0], r'but torch.float16 \[3, 4, 4\]'),
        (released_map(0).long(), r'but torch.int64 \[2, 3, 4, 4\]'),
        (released_map(0)[:, :, 1:], r'but torch.float16 \[2, 3, 3, 4\]'),
        (released_map(0, side=5), r'has the shape \[2, 3, 5, 5\], the first map \[2, 3, 4, 4\]'),
        (released_map(0, k=2), r'has the shape \[2, 2, 4, 4\]'),
        (released_map(0) + torch.tensor([0.0, 0.5]).view(2, 1, 1, 1), r'has the class id \d\.5, where 0 to 6 belong'),
        (released_map(0) + torch.tensor([0.0, 5]).view(2, 1, 1, 1), 'has the class id (7|8|9|10|11), where 0 to 6'),
        (released_map(0) * torch.tensor([torch.nan, 1]).view(2, 1, 1, 1), 'has scores that are not finite'),
        (released_map(0) * torch.tensor([1, torch.nan]).view(2, 1, 1, 1), 'has the class id nan'),
    ],
)
def test_a_map_of_another_kind_is_named(maps, tmp_path, content, said):
    path = maps / 'bee/x_1.pt'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=rf'bee/x_1\.pt (.*)?{said}'):
        imported(maps, tmp_path / 'store')


def test_pickled_code_is_not_run(maps, tmp_path):
    torch.save(Path('x'), maps / 'bee/x_1.pt')
    with pytest.raises(UserError, match=r'bee/x_1\.pt cannot be read'):
        imported(maps, tmp_path / 'store')


def test_an_image_without_a_map_is_named(maps, images, tmp_path):
    (maps / 'bee/y_7.pt').unlink()
    with pytest.raises(UserError, match=r'1 of 5 images have no map in the release \(the first: bee/y_7\.JPEG\)'):
        imported(maps, tmp_path / 'store', reader=create_reader('', str(images)))


def test_a_map_without_an_image_is_named(maps, images, tmp_path):
    (images / 'bee/y_7.JPEG').unlink()
    with pytest.raises(UserError, match=r'1 maps have no image \(the first: .*bee/y_7\.pt\)'):
        imported(maps, tmp_path / 'store', reader=create_reader('', str(images)))


def test_two_images_of_one_map_are_named(maps, images, tmp_path):
    shutil.copy(images / 'cow/z.JPEG', images / 'cow/z.small.JPEG')
    with pytest.raises(UserError, match=r'cow/z\.JPEG and cow/z\.small\.JPEG have one name'):
        imported(maps, tmp_path / 'store', reader=create_reader('', str(images)))


def test_an_image_whose_size_cannot_be_read_is_named(maps, images, tmp_path):
    (images / 'cow/z.JPEG').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'cow/z\.JPEG cannot be read as an image'):
        imported(maps, tmp_path / 'store', reader=create_reader('', str(images)), workers=1)


@pytest.mark.parametrize('name', ['nothing', 'empty', 'text'])
def test_what_holds_no_maps_is_refused(tmp_path, name):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text').write_text('hello')
    with pytest.raises(UserError, match=rf'{name}\b.*(Cannot read|no .pt files|not a tar or zip)|Cannot read .*{name}'):
        imported(tmp_path / name, tmp_path / 'store')


def test_a_round_trip_keeps_every_bit(tmp_path):
    store = write_store(tmp_path / 'store', [f'{name}.JPEG' for name in NAMES], num_classes=2048, k=5, grid=6)
    assert export_release(store, tmp_path / 'files') == 5
    again = import_release(tmp_path / 'files', tmp_path / 'again', Squash(48), num_classes=2048)
    assert list(again.keys) == list(store.keys)
    for row in range(5):
        assert again[row].scores.tobytes() == store[row].scores.tobytes()
        assert again[row].classes.tobytes() == store[row].classes.tobytes()
    export_release(again, tmp_path / 'files again')
    assert contents(tmp_path / 'files again') == contents(tmp_path / 'files')


def test_an_export_goes_on_where_it_was(tmp_path):
    store = write_store(tmp_path / 'store', [f'{name}.JPEG' for name in NAMES], num_classes=7, k=3, grid=4)
    export_release(store, tmp_path / 'files')
    whole = contents(tmp_path / 'files')
    (tmp_path / 'files/ant/x_2.pt').unlink()
    kept = (tmp_path / 'files/ant/x_1.pt').stat().st_mtime_ns
    export_release(store, tmp_path / 'files')
    assert contents(tmp_path / 'files') == whole
    assert (tmp_path / 'files/ant/x_1.pt').stat().st_mtime_ns == kept


def test_an_export_does_not_write_over_other_maps(maps, tmp_path):
    store = write_store(tmp_path / 'store', [f'{name}.JPEG' for name in NAMES], num_classes=7, k=3, grid=4)
    with pytest.raises(UserError, match=r'\.pt exists and holds something else'):
        export_release(store, maps, threads=1)


def test_skipped_images_are_not_exported(tmp_path):
    sizes = np.array([[9, 9], [0, 0]])
    arrays = np.zeros((2, 1, 2, 2)), np.zeros((2, 1, 2, 2), int), sizes
    assert export_release(store_of(tmp_path / 'store', ['a/1.jpg', 'a/2.jpg'], *arrays), tmp_path / 'files') == 1
    assert list(contents(tmp_path / 'files')) == ['a/1.pt']


def test_more_classes_than_half_precision_numbers_are_refused(maps, tmp_path):
    store = write_store(tmp_path / 'store', ['a/1.jpg'], num_classes=2049, k=1, grid=1)
    with pytest.raises(UserError, match='exact up to 2048 classes: it is not for 2049'):
        export_release(store, tmp_path / 'files')
    with pytest.raises(UserError, match='exact up to 2048 classes'):
        import_release(maps, tmp_path / 'other', Squash(32), num_classes=2049)


def test_names_that_lead_out_of_the_folder_are_neither_imported_nor_exported(maps, tmp_path):
    with tarfile.open(tmp_path / 'maps.tar', 'w') as tar:
        tar.add(maps, 'top5')
        tar.add(maps / 'cow/z.pt', '../../../outside/evil.pt')
    with pytest.raises(UserError, match=r'evil\.pt., which .* leads outside its folder'):
        imported(tmp_path / 'maps.tar', tmp_path / 'store')
    store = SimpleNamespace(num_classes=7, path='store', keys=['../evil.jpg'], meta={'skipped': []})
    with pytest.raises(UserError, match=r"store contains the path '\.\./evil', which .* leads outside its folder"):
        export_release(store, tmp_path / 'files')
    assert not (tmp_path / 'files').exists() and not (tmp_path / 'evil.pt').exists()


def test_images_with_dots_in_their_names_keep_their_maps(tmp_path):
    names = ['a/clip_2.0_001.JPEG', 'a/clip_2.0_002.JPEG', 'b/x.small.JPEG']
    store = write_store(tmp_path / 'store', names, num_classes=7, k=3, grid=4)
    export_release(store, tmp_path / 'files')
    assert sorted(contents(tmp_path / 'files')) == ['a/clip_2.0_001.pt', 'a/clip_2.0_002.pt', 'b/x.pt']
    reader = SimpleNamespace(filenames=lambda: names, class_to_idx={})
    with mock.patch('tokenlabel.labels.maintenance.release.image_size', return_value=(9, 9)):
        again = imported(tmp_path / 'files', tmp_path / 'again', reader=reader)
    assert list(again.keys) == names
    assert [again[row].scores.tobytes() for row in range(3)] == [store[row].scores.tobytes() for row in range(3)]


@pytest.mark.parametrize(
    'content',
    [
        released_map(0).requires_grad_(),
        torch.zeros(1, dtype=torch.half).expand(2, 3, 10**4, 10**4),
        released_map(0).to_sparse(),
        torch.empty(2, 3, 4, 4, dtype=torch.half, device='meta'),
    ],
    ids=['parameter', 'huge view', 'sparse', 'meta'],
)
def test_tensors_of_other_kinds_are_maps_or_named(maps, tmp_path, content):
    torch.save(content, maps / 'bee/x_1.pt')
    if content.requires_grad:
        assert len(imported(maps, tmp_path / 'store')) == 5
    else:
        with pytest.raises(UserError, match=r'bee/x_1\.pt (is not a released score map|cannot be read)'):
            imported(maps, tmp_path / 'store')


def test_a_map_that_is_compressed_inside_is_refused(maps, tmp_path):
    path = maps / 'bee/x_1.pt'
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as target:
        for name, data in parts.items():
            target.writestr(name, data)
    with pytest.raises(UserError, match=r'bee/x_1\.pt cannot be read as a score map \(it is compressed inside\)'):
        imported(maps, tmp_path / 'store')
