"""Images of any layout: keys, classes and bytes."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data.readers import create_reader
from torch.utils.data import DataLoader

from tokenlabel.data.readers import open_images
from tokenlabel.errors import UserError

TREE = ('cat/2.png', 'cat/10.jpg', 'dog/0.png', 'dog/2.png')


def picture(seed: int, suffix: str = '.png') -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'JPEG' if suffix == '.jpg' else 'PNG')
    return buffer.getvalue()


PICTURES = {name: picture(seed, Path(name).suffix) for seed, name in enumerate(TREE)}


def write_tree(root: Path, files: dict[str, bytes] = PICTURES) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def contents(reader) -> dict[str, bytes]:
    """Key -> bytes, read out of order."""
    read = {}
    for index in reversed(range(len(reader))):
        with reader[index][0] as stream:
            read[reader.filename(index)] = stream.read()
    return read


def classes(reader) -> dict[str, int]:
    return {reader.filename(index): int(reader.targets[index]) for index in range(len(reader))}


class TestFolders:
    def test_the_class_of_an_image_is_its_folder(self, tmp_path):
        reader = open_images(write_tree(tmp_path / 'images'))
        assert contents(reader) == PICTURES
        assert list(reader.filenames()) == list(TREE)
        assert reader.class_to_idx == {'cat': 0, 'dog': 1}
        assert classes(reader) == {'cat/2.png': 0, 'cat/10.jpg': 0, 'dog/0.png': 1, 'dog/2.png': 1}
        assert reader.labelled and reader.num_classes == 2

    def test_order_and_classes_are_those_of_timm(self, tmp_path):
        ours = open_images(write_tree(tmp_path / 'images'))
        timms = create_reader('', str(tmp_path / 'images'))
        assert ours.filenames() == timms.filenames() and ours.class_to_idx == timms.class_to_idx
        assert ours.filenames(absolute=True) == timms.filenames(absolute=True)
        assert [ours[i][1] for i in range(4)] == [timms[i][1] for i in range(4)]

    def test_images_in_the_root_have_no_class(self, tmp_path):
        reader = open_images(write_tree(tmp_path / 'images', {'b.png': picture(0), 'a.jpg': picture(1, '.jpg')}))
        assert reader.filenames() == ['a.jpg', 'b.png']
        assert (reader.labelled, reader.class_to_idx, reader.num_classes) == (False, {}, 0)
        assert reader[0][1] == -1

    def test_tars_beside_what_was_unpacked_from_them_are_left_alone(self, tmp_path):
        write_tar(write_tree(tmp_path / 'images') / 'cat.tar', {'2.png': b''})
        assert contents(open_images(tmp_path / 'images')) == PICTURES


class TestTars:
    def test_a_tar_of_class_folders_reads_as_the_unpacked_tree(self, tmp_path):
        tree = open_images(write_tree(tmp_path / 'tree'))
        tar = open_images(write_tar(tmp_path / 'images.tar', {f'./{name}': data for name, data in PICTURES.items()}))
        assert contents(tar) == contents(tree)
        assert tar.filenames() == tree.filenames()
        assert classes(tar) == classes(tree) and tar.class_to_idx == tree.class_to_idx
        assert tar.filename(0, absolute=True) == f'{tmp_path}/images.tar/cat/2.png'

    def test_a_folder_of_a_tar_per_class_reads_as_the_unpacked_tree(self, tmp_path):
        for name in ('cat', 'dog'):
            files = {key.partition('/')[2]: data for key, data in PICTURES.items() if key.startswith(name)}
            write_tar(tmp_path / 'tars' / f'{name}.tar', files)
        reader = open_images(tmp_path / 'tars')
        assert contents(reader) == PICTURES
        assert reader.class_to_idx == {'cat': 0, 'dog': 1} and classes(reader)['dog/0.png'] == 1

    def test_classes_and_images_are_those_of_timm(self, tmp_path):
        path = write_tar(tmp_path / 'images.tar', PICTURES)
        ours, timms = open_images(path), create_reader('', str(path))
        for index in range(4):
            stream, target = timms[index]
            assert (ours[index][0].read(), ours[index][1]) == (stream.read(), target)

    def test_a_flat_tar_has_no_classes(self, tmp_path):
        reader = open_images(write_tar(tmp_path / 'images.tar', {'0.png': picture(0), '1.png': picture(1)}))
        assert not reader.labelled and reader.filenames() == ['0.png', '1.png']

    @pytest.mark.parametrize('keep', [700, 1300])
    def test_a_tar_that_is_cut_off_is_named(self, tmp_path, keep):
        path = write_tar(tmp_path / 'images.tar', PICTURES)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(UserError, match=r'images\.tar cannot be read as a tar'):
            open_images(path)

    def test_a_damaged_header_is_not_taken_for_the_end(self, tmp_path):
        path = write_tar(tmp_path / 'images.tar', PICTURES)
        data = bytearray(path.read_bytes())
        header = data.index(b'dog/0.png')
        data[header : header + 4] = b'\xff' * 4
        path.write_bytes(data)
        with pytest.raises(UserError, match=rf'a header is missing at byte {header}'):
            open_images(path)

    def test_a_compressed_tar_is_refused(self, tmp_path):
        with tarfile.open(tmp_path / 'images.tar.gz', 'w:gz'):
            pass
        with pytest.raises(UserError, match=r'images\.tar\.gz is compressed.*unpack'):
            open_images(tmp_path / 'images.tar.gz')

    def test_many_tars_are_read_without_keeping_all_open(self, tmp_path):
        files = {f'{number:03d}.tar': {'0.png': picture(number)} for number in range(70)}
        for name, content in files.items():
            write_tar(tmp_path / name, content)
        reader = open_images(tmp_path)
        assert contents(reader) == {f'{Path(name).stem}/0.png': content['0.png'] for name, content in files.items()}
        assert len(reader._files._open) == 64


def shard(numbers, suffix: str = 'cls') -> dict[str, bytes]:
    files = {}
    for number in numbers:
        files[f'{number:03d}.jpg'] = picture(number, '.jpg')
        files[f'{number:03d}.{suffix}'] = (
            json.dumps({'label': number % 3}).encode() if suffix == 'json' else str(number % 3).encode()
        )
    return files


class TestShards:
    @pytest.mark.parametrize('suffix', ['cls', 'json'])
    @pytest.mark.parametrize('prefix', ['', 'wds/'])
    def test_labels_lie_beside_images(self, tmp_path, suffix, prefix):
        write_tar(tmp_path / 'shard-0.tar', shard(range(2), suffix))
        write_tar(tmp_path / 'shard-1.tar', shard(range(2, 5), suffix))
        reader = open_images(f'{prefix}{tmp_path}')
        assert classes(reader) == {
            'shard-0/000.jpg': 0,
            'shard-0/001.jpg': 1,
            'shard-1/002.jpg': 2,
            'shard-1/003.jpg': 0,
            'shard-1/004.jpg': 1,
        }
        assert contents(reader)['shard-1/003.jpg'] == picture(3, '.jpg')
        assert (reader.labelled, reader.class_to_idx, reader.num_classes) == (True, {}, 3)

    def test_labels_that_are_names_are_numbered(self, tmp_path):
        files = {'a.png': picture(0), 'a.cls': b'dog\n', 'b.png': picture(1), 'b.cls': b'cat'}
        reader = open_images(write_tar(tmp_path / 'shard.tar', files))
        assert reader.class_to_idx == {'cat': 0, 'dog': 1} and classes(reader) == {'shard/a.png': 1, 'shard/b.png': 0}

    def test_a_sample_has_one_image(self, tmp_path):
        files = {'a.mask.png': picture(0), 'a.png': picture(1), 'a.jpg': picture(2, '.jpg'), 'a.cls': b'0'}
        assert open_images(write_tar(tmp_path / 'shard.tar', files)).filenames() == ['shard/a.jpg']

    def test_samples_without_labels_are_images_without_class(self, tmp_path):
        write_tar(tmp_path / 'shard.tar', {'a.png': picture(0)})
        reader = open_images(f'wds/{tmp_path}/shard.tar')
        assert not reader.labelled and reader.filenames() == ['shard/a.png']

    def test_a_pattern_counts_shards(self, tmp_path):
        for number in range(12):
            write_tar(tmp_path / f'shard-{number:03d}.tar', shard([number]))
        reader = open_images(f'wds/{tmp_path}/shard-{{008..010}}.tar')
        assert reader.filenames() == ['shard-008/008.jpg', 'shard-009/009.jpg', 'shard-010/010.jpg']
        assert len(open_images(f'wds/{tmp_path}/shard-*.tar')) == 12

    def test_a_missing_shard_is_named(self, tmp_path):
        write_tar(tmp_path / 'shard-0.tar', shard([0]))
        with pytest.raises(UserError, match=r'No WebDataset shards at .*shard-1\.tar'):
            open_images(f'wds/{tmp_path}/shard-{{0..1}}.tar')

    def test_shards_of_a_split_are_told_by_their_names(self, tmp_path):
        write_tar(tmp_path / 'set-train-0.tar', shard(range(3)))
        write_tar(tmp_path / 'set-val-0.tar', shard(range(3, 5)))
        assert len(open_images(tmp_path)) == 3
        assert len(open_images(f'wds/{tmp_path}', split='validation')) == 2
        with pytest.raises(UserError, match='no shards of a split test, only of train, validation'):
            open_images(tmp_path, split='test')

    def test_shards_of_a_split_are_told_by_the_info_file(self, tmp_path):
        write_tar(tmp_path / 'a.tar', shard(range(3)))
        write_tar(tmp_path / 'b.tar', shard(range(3, 5)))
        info = {'splits': {'train': {'filenames': ['b.tar']}, 'minival': {'filenames': ['a.tar']}}}
        (tmp_path / '_info.json').write_text(json.dumps(info))
        assert open_images(tmp_path).filenames() == ['b/003.jpg', 'b/004.jpg']
        assert len(open_images(tmp_path, split='minival')) == 3

    def test_a_name_that_occurs_twice_is_refused(self, tmp_path):
        for folder in ('one', 'two'):
            write_tar(tmp_path / folder / 'shard.tar', shard([0]))
        with pytest.raises(UserError, match=r'2 images of the name shard/000\.jpg'):
            open_images(f'wds/{tmp_path}/{{one,two}}/shard.tar')


class TestHub:
    @pytest.fixture
    def datasets(self, tmp_path, monkeypatch):
        datasets = pytest.importorskip('datasets')
        monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'cache')
        datasets.disable_progress_bars()
        return datasets

    def write(self, datasets, folder: Path, paths, labels=None, column: str = 'image', split: str = 'train') -> str:
        folder.mkdir(exist_ok=True)
        rows = {column: [{'path': path, 'bytes': picture(seed)} for seed, path in enumerate(paths)]}
        features = {column: datasets.Image()}
        if labels is not None:
            rows['label'] = labels
            features['label'] = datasets.ClassLabel(names=['cat', 'dog'])
        data = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        data.to_parquet(folder / f'{split}-00000.parquet')
        return f'hfds/{folder}'

    def test_images_have_the_paths_and_classes_of_the_dataset(self, datasets, tmp_path):
        reader = open_images(self.write(datasets, tmp_path / 'data', ['b.png', 'a.png'], [1, 0]))
        assert contents(reader) == {'b.png': picture(0), 'a.png': picture(1)}
        assert reader.class_to_idx == {'cat': 0, 'dog': 1} and classes(reader) == {'b.png': 1, 'a.png': 0}
        assert reader.labelled

    def test_images_without_distinct_paths_are_numbered(self, datasets, tmp_path):
        source = self.write(datasets, tmp_path / 'data', ['a.png', 'a.png'], column='img', split='validation')
        reader = open_images(source, split='validation')
        assert reader.filenames() == ['validation/000000000', 'validation/000000001']
        assert not reader.labelled and contents(reader)['validation/000000001'] == picture(1)

    def test_paths_of_image_files_are_below_their_folder(self, datasets, tmp_path):
        write_tree(tmp_path / 'data' / 'train')
        reader = open_images(f'hfds/{tmp_path / "data"}')
        assert contents(reader) == {f'train/{name}': data for name, data in PICTURES.items()}
        assert reader.class_to_idx == {'cat': 0, 'dog': 1}

    def test_a_missing_split_is_named(self, datasets, tmp_path):
        source = self.write(datasets, tmp_path / 'data', ['a.png'])
        with pytest.raises(UserError, match=r'data has no split test that can be read'):
            open_images(source, split='test')

    def test_without_the_package_its_installation_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__('sys').modules, 'datasets', None)
        with pytest.raises(UserError, match=r'hfds/x needs the package datasets: pip install'):
            open_images('hfds/x')


class TestErrors:
    @pytest.mark.parametrize('source', ['tfds/imagenet2012', 'hfids/timm/imagenet-1k-wds'])
    def test_what_only_streams_is_refused(self, source):
        name = source.partition('/')[2]
        with pytest.raises(UserError, match=rf'can only be streamed.*hfds/{name}'):
            open_images(source)

    def test_a_missing_path_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r'No image folder at .*nowhere'):
            open_images(tmp_path / 'nowhere')

    def test_an_empty_folder_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r'No images in .*images are expected as .*/CLASS/IMAGE\.jpg'):
            open_images(tmp_path)


class Lengths:
    """A dataset for workers: number of bytes and class of each image."""

    def __init__(self, reader):
        self.reader = reader

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index):
        stream, target = self.reader[index]
        with stream:
            return len(stream.read()), target


class TestProcesses:
    @pytest.fixture(params=['folder', 'tar', 'shards', 'hub'])
    def reader(self, request, tmp_path, monkeypatch):
        if request.param == 'folder':
            return open_images(write_tree(tmp_path / 'images'))
        if request.param == 'tar':
            return open_images(write_tar(tmp_path / 'images.tar', PICTURES))
        if request.param == 'shards':
            return open_images(write_tar(tmp_path / 'shard.tar', shard(range(6))))
        datasets = pytest.importorskip('datasets')
        monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'cache')
        return open_images(TestHub().write(datasets, tmp_path / 'data', ['b.png', 'a.png'], [1, 0]))

    def test_a_pickled_reader_reads_the_same(self, reader):
        before = contents(reader)
        again = pickle.loads(pickle.dumps(reader))
        assert contents(again) == before and again.filenames() == reader.filenames()

    def test_forked_workers_read_the_same(self, reader):
        expected = [list(map(int, Lengths(reader)[index])) for index in range(len(reader))]
        loader = DataLoader(Lengths(reader), num_workers=2, multiprocessing_context='fork', batch_size=None)
        assert [list(map(int, sample)) for sample in loader] == expected

    @pytest.mark.slow
    def test_spawned_workers_read_the_same(self, reader):
        expected = [list(map(int, Lengths(reader)[index])) for index in range(len(reader))]
        loader = DataLoader(Lengths(reader), num_workers=1, multiprocessing_context='spawn', batch_size=None)
        assert [list(map(int, sample)) for sample in loader] == expected
