"""The classes of the numbers and colours in masks, from a config's `classes`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmseg_ext.datasets.load_label_map import read_label_map
from mmseg_ext.datasets.mask_classes import IGNORED, counted_classes, mask_classes
from tokenlabel.errors import UserError


def labels(stored, classes, ignore=(), others='error', dtype=np.uint8) -> list:
    return mask_classes(classes, ignore, others).labels(np.array(stored, dtype), 'a.png').tolist()


def test_a_list_names_ids_in_order_and_255_is_ignored():
    assert labels([[0, 1, 255]], ['sky', 'road']) == [[0, 1, 255]]


def test_names_with_ids_with_several_and_with_255():
    classes = dict(sky=0, road=[3, 4], foreground=255)
    assert labels([[0, 3, 4, 255]], classes) == [[0, 1, 1, 2]]
    assert mask_classes(classes).names == ('sky', 'road', 'foreground')


def test_the_most_common_mask_of_0_and_255_is_one_line():
    assert labels([[0, 255]], dict(background=0, leaf=255)) == [[0, 1]]


def test_ids_to_ignore_are_not_learned():
    assert labels([[0, 11, 12, 255]], ['sky', 'road'], ignore=[11, 12]) == [[0, 255, 255, 255]]


@pytest.mark.parametrize(('others', 'expected'), [('ignore', 255), ('road', 1)])
def test_what_is_not_named_is_ignored_or_of_a_class(others, expected):
    assert labels([[0, 1, 77]], ['sky', 'road'], others=others) == [[0, 1, expected]]
    assert labels([[0, 1, 70_000]], ['sky', 'road'], others=others, dtype=np.int32) == [[0, 1, expected]]


def test_what_is_not_named_is_an_error_with_what_to_do():
    message = (
        r'holds id 9 in 2 pixels, but the classes are 0 and 4 \(255 is ignored\): name 9 in `classes` or in ignore='
    )
    with pytest.raises(UserError, match=message):
        labels([[0, 9, 9]], dict(sky=0, road=4))


def test_ids_of_16_bits():
    assert labels([[0, 1000, 65535]], dict(sky=0, road=1000), ignore=65535, dtype=np.uint16) == [[0, 1, 255]]


CLASSES = dict(sky='#4682b4', car=['#400080', '#400081'], void=0)


class TestColours:
    def test_masks_in_colour_are_read_by_their_colours(self):
        stored = [[(0x46, 0x82, 0xB4), (0x40, 0, 0x80), (0x40, 0, 0x81), (0, 0, 0), (255, 255, 255)]]
        assert labels(stored, CLASSES, ignore='#ffffff') == [[0, 1, 1, 2, 255]]

    def test_their_colours_are_the_palette(self):
        assert mask_classes(CLASSES).palette()[:2] == [(0x46, 0x82, 0xB4), (0x40, 0, 0x80)]

    def test_other_colours_are_named(self):
        with pytest.raises(
            UserError, match=r'holds colour #000001, #0a0b0c in 2 pixels, but the classes are .*3 colours'
        ):
            labels([[(0, 0, 1), (10, 11, 12)]], CLASSES)

    def test_a_palette_is_read_in_colour(self, tmp_path):
        image = Image.new('P', (2, 1))
        image.putpalette([0x46, 0x82, 0xB4, 0x40, 0, 0x80])
        image.putdata([1, 0])
        image.save(tmp_path / 'a.png')
        assert read_label_map(tmp_path / 'a.png', mask_classes(CLASSES)).tolist() == [[1, 0]]

    def test_a_mask_in_colour_without_colours_of_classes_is_refused(self, tmp_path):
        Image.new('RGB', (2, 1)).save(tmp_path / 'a.png')
        with pytest.raises(UserError, match=r'is a colour picture \(3 channels\) .*name the colours'):
            read_label_map(tmp_path / 'a.png', mask_classes(['sky']))

    @given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20), st.integers(1, 9))
    def test_any_colours_are_looked_up_one_by_one(self, pixels, count):
        colours = list(dict.fromkeys(pixels))[:count]
        named = {f'class {number}': f'#{r:02x}{g:02x}{b:02x}' for number, (r, g, b) in enumerate(colours)}
        expected = [colours.index(pixel) if pixel in colours else IGNORED for pixel in pixels]
        assert labels([pixels], named, others='ignore') == [expected]


class TestFiles:
    def read(self, tmp_path, text):
        (tmp_path / 'classes.txt').write_text(text)
        return mask_classes('classes.txt', data_root=tmp_path)

    def test_a_name_a_line(self, tmp_path):
        assert self.read(tmp_path, 'sky\nroad\n') == mask_classes(['sky', 'road'])

    def test_names_with_ids_or_colours(self, tmp_path):
        expected = mask_classes({'sky': 0, 'road': [3, 4]})
        assert self.read(tmp_path, 'name,id\nsky,0\nroad,3\nroad,4\n') == expected
        assert self.read(tmp_path, 'sky\t0\nroad\t3\nroad\t4\n') == expected
        assert self.read(tmp_path, 'car,#400080\n') == self.read(tmp_path, 'car,64,0,128\n')

    def test_the_label_map_of_cvat(self, tmp_path):
        text = '# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:64,0,128::\n'
        assert self.read(tmp_path, text) == mask_classes({'background': '#000000', 'car': '#400080'})

    def test_what_is_neither_is_said(self, tmp_path):
        with pytest.raises(UserError, match=r"classes\.txt has 'blue' for road: give a number, or a colour"):
            self.read(tmp_path, 'sky,0\nroad,blue\n')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(classes=None), 'has no classes'),
        (dict(classes=[]), 'there are 0'),
        (dict(classes=['a', 'a']), "'a' is named twice"),
        (dict(classes=dict(a=0, b=[1, 0])), '0 is assigned to a and to b'),
        (dict(classes=dict(a=0), ignore=[0]), '0 is assigned to a and to ignore'),
        (dict(classes=dict(a=-1)), 'has -1 for a: give a number from 0 to 65535'),
        (dict(classes=dict(a='blue')), "has 'blue' for a: give .* a colour such as '#400080'"),
        (dict(classes=dict(a=1.5)), 'has 1.5 for a'),
        (dict(classes=['a', 'b'], others='c'), "others is 'c': set 'error', 'ignore' or one of the classes, a, b"),
        (dict(classes=dict(a=1), count_from_one=True), 'reduce_zero_label and class numbers'),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        mask_classes(**arguments)


@given(st.integers(1, 255), st.booleans(), st.integers(0, 255))
def test_counted_classes_are_those_of_mmsegmentation(count, reduce_zero_label, number):
    expected = number if number == 255 or not reduce_zero_label else 255 if number == 0 else number - 1
    classes = counted_classes(count, reduce_zero_label)
    if expected != 255 and expected >= count:
        with pytest.raises(UserError, match=f'holds id {number} in 1 pixels'):
            classes.labels(np.array([[number]], np.uint8), 'a.png')
    else:
        assert classes.labels(np.array([[number]], np.uint8), 'a.png').tolist() == [[expected]]
