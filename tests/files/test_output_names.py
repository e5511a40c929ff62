"""Names of what is written per image never collide."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenlabel.files.output_names import output_names


@pytest.mark.parametrize(
    ('names', 'written'),
    [
        (['a/1.jpg', 'b/1.jpg'], ['a/1.png', 'b/1.png']),
        (['1.jpg', '1.png'], ['1.jpg.png', '1.png.png']),
        (['clip_2.0_001.jpg', 'clip_2.0_002.jpg'], ['clip_2.0_001.png', 'clip_2.0_002.png']),
        (['a.jpg', 'A.jpg'], ['a.jpg.png', 'A.jpg~2.png']),
        (['b.jpg', 'b.jpg.jpg', 'b.tif'], ['b.jpg~2.png', 'b.jpg.png', 'b.tif.png']),
        (['a.jpg', 'a.png/x.jpg'], ['a.jpg.png', 'a.png/x.png']),
    ],
)
def test_an_image_keeps_its_path_and_what_is_needed_of_its_suffix(names, written):
    assert output_names(names, '.png') == written


def test_names_that_are_too_long_are_cut_and_stay_apart():
    names = [f'c/{"x" * 250}{end}.jpeg' for end in 'ab'] + [f'{"é" * 125}.jpg']
    written = output_names(names, '.png')
    assert len(set(written)) == 3 and all(len(os.fsencode(name.rpartition('/')[2])) <= 255 for name in written)
    assert all(name.encode().decode().endswith('.png') for name in written)


PARTS = st.sampled_from(['a', 'A', 'a.png', 'a.jpg', 'b', 'caf\udce9', 'x' * 251, 'x' * 252])
PATHS = st.lists(st.tuples(st.lists(PARTS, max_size=2), PARTS, st.sampled_from(['.jpg', '.png', '.JPG'])), max_size=12)


@given(PATHS)
def test_no_two_images_have_one_name_on_any_file_system(paths):
    files = {'/'.join([*folders, f'{base}{suffix}']) for folders, base, suffix in paths}
    folders = {name[:place] for name in files for place, char in enumerate(name) if char == '/'}
    names = sorted(files - folders)
    written = output_names(names, '.png')
    folded = [name.casefold() for name in written]
    assert len(set(folded)) == len(names)
    assert not {folder.casefold() for folder in folders} & set(folded)
    for name, result in zip(names, written, strict=True):
        assert result.rpartition('/')[0] == name.rpartition('/')[0]
