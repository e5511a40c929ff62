"""Images that must not vanish: folders, tars and shards with what people and systems leave in them."""

import json
import logging
import os
import tarfile
from pathlib import Path

import pytest

from tests.data.test_readers import PICTURES, classes, contents, picture, write_tar, write_tree
from tokenlabel.data.readers import open_images
from tokenlabel.errors import UserError

JPG = picture(0, '.jpg')


def said(caplog) -> str:
    return '\n'.join(record.getMessage() for record in caplog.records)


class TestFolders:
    def test_hidden_names_and_links(self, tmp_path, caplog):
        root = write_tree(tmp_path / 'images', PICTURES | {'cat/._2.png': b'junk', '.ipynb_checkpoints/a.png': b'junk'})
        write_tree(tmp_path / 'owls', {'1.png': picture(9)})
        (root / 'owl').symlink_to(tmp_path / 'owls')
        reader = open_images(root)
        assert contents(reader) == PICTURES | {'owl/1.png': picture(9)}
        assert reader.class_to_idx == {'cat': 0, 'dog': 1, 'owl': 2}
        assert 'images: 5 images; skipped 2 hidden (such as .ipynb_checkpoints)' in said(caplog)

    def test_every_kind_of_image_in_any_case(self, tmp_path):
        names = ['a.JPEG', 'b.Tif', 'c.tiff', 'd.BMP', 'e.webp', 'f.PNG', 'g.jpg']
        assert open_images(write_tree(tmp_path, dict.fromkeys(names, JPG))).filenames() == names

    def test_a_class_folder_without_images_is_named(self, tmp_path, caplog):
        (write_tree(tmp_path / 'images') / 'bee').mkdir()
        assert open_images(tmp_path / 'images').class_to_idx == {'cat': 0, 'dog': 1}
        assert '1 folders hold no image, so that they are no classes, such as bee' in said(caplog)

    def test_classes_of_one_name_in_two_places_are_named(self, tmp_path, caplog):
        reader = open_images(write_tree(tmp_path / 'images', {'a/good/1.jpg': JPG, 'b/good/1.jpg': JPG}))
        assert reader.class_to_idx == {'good': 0}
        assert '1 classes lie in several, such as a/good and b/good' in said(caplog)

    def test_an_image_beside_the_class_folders_is_named(self, tmp_path, caplog):
        assert not open_images(write_tree(tmp_path / 'images', PICTURES | {'cover.jpg': JPG})).labelled
        assert 'images such as cover.jpg lie beside the class folders' in said(caplog)

    def test_an_unreadable_class_folder_is_refused_though_there_are_tars(self, tmp_path, monkeypatch):
        write_tar(write_tree(tmp_path / 'images') / 'all.tar', PICTURES)
        scandir = os.scandir

        def refuse(path):
            if str(path).endswith('dog'):
                raise PermissionError(13, 'Permission denied', str(path))
            return scandir(path)

        monkeypatch.setattr(os, 'scandir', refuse)
        with pytest.raises(UserError, match=r'dog cannot be read \(permission denied\)'):
            open_images(tmp_path / 'images')

    def test_only_broken_links_are_said_to_be_so(self, tmp_path):
        (tmp_path / 'a.jpg').symlink_to('../.git/annex/objects/x')
        with pytest.raises(UserError, match=r'No images in .*skipped 1 broken links \(such as a\.jpg\)'):
            open_images(tmp_path)

    def test_a_pipe_that_replaces_an_image_later_is_not_waited_for(self, tmp_path):
        reader = open_images(write_tree(tmp_path))
        (tmp_path / 'cat/2.png').unlink()
        os.mkfifo(tmp_path / 'cat/2.png')
        with pytest.raises(OSError, match='not a regular file'):
            reader[0]


class TestTars:
    def test_hidden_members_and_links_are_as_in_folders(self, tmp_path, caplog):
        path = write_tar(tmp_path / 'images.tar', PICTURES | {'./cat/._2.png': b'junk', '__MACOSX/cat/2.png': b'junk'})
        with tarfile.open(path, 'a') as archive:
            for kind, name, target in (
                (tarfile.LNKTYPE, 'dog/hard.png', 'cat/2.png'),
                (tarfile.SYMTYPE, 'dog/soft.png', '../cat/2.png'),
                (tarfile.SYMTYPE, 'dog/gone.png', 'nowhere.png'),
            ):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, target
                archive.addfile(member)
        linked = dict.fromkeys(['dog/hard.png', 'dog/soft.png'], PICTURES['cat/2.png'])
        assert contents(open_images(path)) == PICTURES | linked
        assert '2 hidden (such as images.tar/__MACOSX/cat/2.png)' in said(caplog)
        assert '1 links to what is not there (such as images.tar/dog/gone.png)' in said(caplog)

    def test_hidden_tars_are_left_alone(self, tmp_path):
        write_tar(tmp_path / 'cat.TAR', {'2.png': picture(0)})
        (tmp_path / '._cat.TAR').write_bytes(b'junk')
        assert open_images(tmp_path).filenames() == ['cat/2.png']

    @pytest.mark.parametrize('name', ['../../evil.jpg', '/etc/evil.jpg', 'a/../../evil.jpg', '..\\evil.jpg'])
    def test_names_that_lead_elsewhere_are_refused(self, tmp_path, name):
        with pytest.raises(UserError, match=r'images\.tar contains the path .*evil\.jpg., which .* leads outside'):
            open_images(write_tar(tmp_path / 'images.tar', {name: JPG}))

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / 'images.tar')
        with pytest.raises(UserError, match=r'images\.tar cannot be read \(not a regular file\)'):
            open_images(tmp_path / 'images.tar')

    def test_a_tar_that_has_become_shorter_is_an_error(self, tmp_path):
        path = write_tar(tmp_path / 'images.tar', {'a.jpg': JPG, 'b.jpg': JPG})
        reader = open_images(path)
        os.truncate(path, 700)
        with pytest.raises(OSError, match='the tar ends before this member'):
            reader[1]


def sample(key: str, label: int, **companions: bytes) -> dict[str, bytes]:
    return {
        f'{key}.jpg': JPG,
        f'{key}.cls': str(label).encode(),
        **{f'{key}.{n}.png': d for n, d in companions.items()},
    }


class TestShards:
    def test_dots_in_a_name_are_no_end_of_a_key(self, tmp_path):
        files = {}
        for number in range(4):
            files |= sample(f'clip_2.0_{number:03d}', number)
        assert classes(open_images(write_tar(tmp_path / 'shard.tar', files))) == {
            f'shard/clip_2.0_{number:03d}.jpg': number for number in range(4)
        }

    def test_dots_and_labels_in_json(self, tmp_path):
        files = {
            'a.b.1.jpg': JPG,
            'a.b.1.json': b'\xef\xbb\xbf{"label": 3}',
            'a.b.2.jpg': JPG,
            'c.jpg': JPG,
            'c.cls': b'1',
        }
        reader = open_images(write_tar(tmp_path / 'shard.tar', files))
        assert classes(reader) == {'shard/a.b.1.jpg': 3, 'shard/a.b.2.jpg': -1, 'shard/c.jpg': 1}

    def test_images_that_accompany_another_are_counted(self, tmp_path, caplog):
        files = sample('a', 0, mask=JPG, seg=JPG, left=JPG) | sample('b_1.5', 1, mask=JPG, depth16=JPG, left=JPG)
        reader = open_images(write_tar(tmp_path / 'shard.tar', files))
        assert classes(reader) == {'shard/a.jpg': 0, 'shard/b_1.5.jpg': 1}
        assert '6 that accompany another image (such as shard.tar/a.left.png)' in said(caplog)

    def test_a_further_image_of_a_sample_is_counted(self, tmp_path, caplog):
        files = sample('a', 0) | {'a.png': picture(0)}
        assert open_images(write_tar(tmp_path / 'shard.tar', files)).filenames() == ['shard/a.jpg']
        assert '1 further images of a sample (such as shard.tar/a.png)' in said(caplog)

    def test_a_label_before_the_first_dot_is_that_of_a_single_image(self, tmp_path):
        files = {'a.rgb.jpg': JPG, 'a.cls': b'2', 'b.1.jpg': JPG, 'b.2.jpg': JPG, 'b.cls': b'1'}
        reader = open_images(write_tar(tmp_path / 'shard.tar', files))
        assert classes(reader) == {'shard/a.rgb.jpg': 2, 'shard/b.1.jpg': -1, 'shard/b.2.jpg': -1}

    def test_apple_double_files_are_no_labels_and_no_images(self, tmp_path):
        files = sample('a', 1) | {'._a.jpg': b'junk', '._a.json': b'junk'}
        assert classes(open_images(write_tar(tmp_path / 'shard.tar', files))) == {'shard/a.jpg': 1}

    def test_a_label_as_editors_write_it(self, tmp_path):
        files = {'a.jpg': JPG, 'a.cls': b'\xef\xbb\xbf3\r\n\r\n'}
        assert classes(open_images(write_tar(tmp_path / 'shard.tar', files))) == {'shard/a.jpg': 3}

    @pytest.mark.parametrize('label', [b'-5', b'99999999999999999999', b'123456789'])
    def test_numbers_that_are_no_classes_are_refused(self, tmp_path, label):
        with pytest.raises(UserError, match=rf'label of the images is {label.decode()}: classes are numbers'):
            open_images(write_tar(tmp_path / 'shard.tar', {'a.jpg': JPG, 'a.cls': label}))

    @pytest.mark.parametrize('label', [b'[' * 200_000, b'{"label": ' + b'9' * 5000 + b'}', b'\xff', b'"\\ud8'])
    def test_damaged_labels_are_named(self, tmp_path, label):
        with pytest.raises(UserError, match=r'its label a\.json is damaged'):
            open_images(write_tar(tmp_path / 'shard.tar', {'a.jpg': JPG, 'a.json': label}))

    @pytest.mark.parametrize(
        'pattern', ['x-{0..99999999}.tar', '{0..9}' * 30 + '.tar', 'x-{0..' + '9' * 5000 + '}.tar', '{' * 99]
    )
    def test_a_pattern_of_any_length_ends_at_the_first_missing_shard(self, tmp_path, pattern):
        with pytest.raises(UserError, match='No WebDataset shards at'):
            open_images(f'wds/{tmp_path}/{pattern}')

    def test_a_pattern_of_very_many_braces_is_refused(self, tmp_path):
        with pytest.raises(UserError, match='more than 100 braces'):
            open_images(f'wds/{tmp_path}/{"{a,b}" * 2000}')

    def test_braces_within_braces_and_counting_down(self, tmp_path):
        for name in ('a', 'b', 'c', '1', '2'):
            write_tar(tmp_path / f'{name}.tar', sample(name, 0))
        assert len(open_images(f'wds/{tmp_path}/{{a,{{b,c}},{{2..1}}}}.tar')) == 5

    def test_shards_that_the_info_file_lists_and_are_missing_are_named(self, tmp_path, caplog):
        write_tar(tmp_path / 'a.tar', sample('a', 0))
        write_tar(tmp_path / 'b.tar', sample('b', 0))
        info = {'splits': {'train': {'filenames': ['a.tar', 'b.tar', 'c.tar']}}}
        (tmp_path / '_info.json').write_text(json.dumps(info), encoding='utf-8-sig')
        assert len(open_images(tmp_path)) == 2
        assert '1 of 3 shards of train are missing, such as c.tar' in said(caplog)

    @pytest.mark.parametrize(
        'info', ['[]', '{"splits": 3}', '{"splits": {"train": {"filenames": "a.tar"}}}', '{"splits": {"train": []}}']
    )
    def test_an_info_file_of_something_else_is_named(self, tmp_path, info):
        for name in 'ab':
            write_tar(tmp_path / f'{name}.tar', sample(name, 0))
        (tmp_path / '_info.json').write_text(info)
        with pytest.raises(UserError, match=r'_info\.json does not list the filenames of its split'):
            open_images(tmp_path)

    def test_info_files_lead_nowhere_else(self, tmp_path):
        for name in 'ab':
            write_tar(tmp_path / f'{name}.tar', sample(name, 0))
        (tmp_path / '_info.json').write_text('{"splits": {"train": {"filenames": ["../x/a.tar"]}}}')
        with pytest.raises(UserError, match='leads outside its folder'):
            open_images(tmp_path)


@pytest.fixture(autouse=True)
def warnings_are_heard(caplog):
    with caplog.at_level(logging.WARNING):
        yield


def test_a_tar_of_tars_is_to_be_unpacked_once(tmp_path):
    inner = write_tar(tmp_path / 'x.tar', {'a.jpg': JPG}).read_bytes()
    with pytest.raises(UserError, match=r'all\.tar holds tars, such as cat\.tar: unpack it once \(tar -xf all\.tar'):
        open_images(write_tar(tmp_path / 'all.tar', {'cat.tar': inner}))


def test_a_tree_is_the_same_list_for_all(tmp_path):
    """Annotating and pretraining read what segmenting reads, in one order."""
    root = write_tree(tmp_path / 'images', PICTURES | {'._a.jpg': b'', 'x.txt': b'', '.git/a.jpg': b''})
    (root / 'more').symlink_to('cat')
    expected = [*PICTURES, 'more/2.png', 'more/10.jpg']
    assert open_images(root).filenames() == expected
    assert Path(root, expected[-1]).is_file()
