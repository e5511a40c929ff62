"""Class maps: reading them, and maps of annotator classes seen as maps of image classes."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.class_map import dense_mapped
from tests.reference.targets import dense_maps
from tokenlabel.errors import UserError
from tokenlabel.labels.class_map import map_classes, match_classes, read_class_map

ANNOTATOR = ['tabby', 'tiger cat', 'beagle', 'crane', '7']
IMAGES = ['cat', 'dog']


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


class TestReading:
    def test_json_names_classes_or_numbers_them(self, tmp_path):
        path = write(tmp_path / 'map.json', {'tabby': 'cat', '1': 0, 'beagle': '1'})
        np.testing.assert_array_equal(read_class_map(path, ANNOTATOR, IMAGES), [0, 0, 1, -1, -1])

    def test_text_has_a_pair_a_line(self, tmp_path):
        path = write(tmp_path / 'map.txt', 'tabby cat\n\ntiger cat\tcat\n2   dog\n')
        np.testing.assert_array_equal(read_class_map(path, ANNOTATOR, IMAGES), [0, 0, 1, -1, -1])

    def test_a_name_goes_before_a_number(self, tmp_path):
        path = write(tmp_path / 'map.txt', '7 dog')
        np.testing.assert_array_equal(read_class_map(path, ANNOTATOR, IMAGES), [-1, -1, -1, -1, 1])

    def test_by_name_keeps_the_annotator_classes_of_the_images(self):
        np.testing.assert_array_equal(read_class_map('by_name', ANNOTATOR, ['beagle', 'tabby']), [1, -1, 0, -1, -1])

    @pytest.mark.parametrize(
        ('annotator', 'images', 'complaint'),
        [
            (ANNOTATOR, ['tabby', 'lion'], r'annotator has no class lion \(1 of 2 image classes'),
            (5, IMAGES, 'classes of the annotator have none'),
            (ANNOTATOR, None, 'classes of the images have none'),
        ],
    )
    def test_by_name_needs_names_that_match(self, annotator, images, complaint):
        with pytest.raises(UserError, match=complaint):
            read_class_map('by_name', annotator, images)

    def test_classes_without_names_are_numbered(self, tmp_path):
        path = write(tmp_path / 'map.txt', '3 0\n0 5')
        np.testing.assert_array_equal(read_class_map(path, 4, 6), [5, -1, -1, 0])
        np.testing.assert_array_equal(read_class_map(path, 4, None), [5, -1, -1, 0])

    @pytest.mark.parametrize(
        ('content', 'message'),
        [
            ({'tabi': 'cat'}, r'names the annotator class tabi, .*did you mean tabby'),
            ({'5': 'cat'}, r'names the annotator class 5, which does not exist: there are 5 classes'),
            ({'tabby': 'cats'}, r'names the image class cats, .*did you mean cat'),
            ({'tabby': 2}, r'names the image class 2, which does not exist: there are 2 classes'),
            ('{"tabby": "cat", "0": "cat"}', r'names annotator class 0 twice'),
            ({}, 'maps no class'),
            ([['tabby', 'cat']], 'one JSON object'),
            ({'tabby': ['cat']}, 'one JSON object'),
            ('{', 'is not valid JSON'),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, content, message):
        with pytest.raises(UserError, match=rf'map\.json .*{message}'):
            read_class_map(write(tmp_path / 'map.json', content), ANNOTATOR, IMAGES)

    def test_a_line_that_is_no_pair_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"map\.txt, line 2: 'tiger cat cat' is not"):
            read_class_map(write(tmp_path / 'map.txt', 'tabby cat\ntiger cat cat'), ANNOTATOR, IMAGES)

    def test_names_for_images_without_classes_are_refused(self, tmp_path):
        with pytest.raises(UserError, match=r'image class cat, .*give numbers'):
            read_class_map(write(tmp_path / 'map.txt', 'tabby cat'), ANNOTATOR, None)

    def test_a_map_is_read_as_editors_write_it(self, tmp_path):
        (tmp_path / 'map.txt').write_bytes(b'\xef\xbb\xbftabby cat\r\nbeagle\tdog\r\n\r\n')
        np.testing.assert_array_equal(read_class_map(tmp_path / 'map.txt', ANNOTATOR, IMAGES), [0, -1, 1, -1, -1])
        (tmp_path / 'map.json').write_text('{"tabby": "cat"}', encoding='utf-8-sig')
        np.testing.assert_array_equal(read_class_map(tmp_path / 'map.json', ANNOTATOR, IMAGES), [0, -1, -1, -1, -1])

    @pytest.mark.parametrize('content', ['[' * 200_000, '{"tabby": ' + '9' * 5000 + '}', '{"tabby": true}'])
    def test_json_that_is_no_map_is_one_sentence(self, tmp_path, content):
        (tmp_path / 'map.json').write_text(content)
        with pytest.raises(UserError, match=r'map\.json'):
            read_class_map(tmp_path / 'map.json', ANNOTATOR, IMAGES)

    def test_a_number_of_any_length_is_no_class(self, tmp_path):
        with pytest.raises(UserError, match='which does not exist'):
            read_class_map(write(tmp_path / 'map.txt', f'{"9" * 5000} cat'), ANNOTATOR, IMAGES)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r'nowhere\.txt cannot be read'):
            read_class_map(tmp_path / 'nowhere.txt', ANNOTATOR, IMAGES)


class TestMapping:
    @settings(max_examples=40)
    @given(st.integers(1, 6), st.integers(1, 4), st.lists(st.integers(-1, 3), min_size=6, max_size=6), st.integers(0))
    def test_it_is_the_definition(self, k, side, table, seed):
        rng = np.random.default_rng(seed % 2**32)
        classes = rng.permuted(np.broadcast_to(np.arange(6)[:, None, None], (6, side, side)), axis=0)[:k]
        scores = -np.sort(-rng.normal(2, 3, (k, side, side)), axis=0)
        mapped_scores, mapped = map_classes(scores, classes, np.array(table))

        dense = dense_maps(torch.from_numpy(mapped_scores)[None], torch.from_numpy(mapped)[None], 4)[0]
        np.testing.assert_allclose(dense, dense_mapped(scores, classes, np.array(table), 4), atol=1e-5)

    def test_the_best_entry_is_first_and_empty_ones_are_last(self):
        classes = np.array([2, 0, 1, 3]).reshape(4, 1, 1)
        scores = np.array([2.0, 1.9, 1.8, -1.0], dtype=np.float16).reshape(4, 1, 1)
        mapped_scores, mapped = map_classes(scores, classes, np.array([1, 1, 2, 3]))
        assert mapped.ravel().tolist() == [1, 2, 3, 0]
        np.testing.assert_allclose(mapped_scores.ravel(), [np.logaddexp(1.9, 1.8), 2, -1, 0], rtol=1e-3)
        assert mapped_scores.dtype == np.float16


def test_classes_are_matched_by_name_where_both_have_names_else_by_number():
    assert match_classes(['dog', 'owl', 'elk'], 3, ['ant', 'owl', 'cat', 'dog'], 4).tolist() == [3, 1, -1]
    assert match_classes([], 3, ['ant', 'owl', 'cat'], 3).tolist() == [0, 1, 2]
    assert match_classes(['dog', 'owl'], 2, None, 3).tolist() == [-1, -1]


def test_names_that_are_numbers_are_the_numbers_of_the_others_classes():
    synsets = [f'n{number:08d}' for number in range(1000)]
    assert match_classes(['2', '10', '107'], 3, synsets, 1000).tolist() == [2, 10, 107]
    assert match_classes(['2', '10', '107'], 3, None, 1000).tolist() == [2, 10, 107]


def test_names_that_are_numbers_are_names_where_the_others_have_them_too():
    assert match_classes(['5', '7'], 2, ['7', '6', '5'], 3).tolist() == [2, 0]


def test_names_that_count_from_one_or_beyond_the_others_say_nothing():
    assert match_classes(['1', '2', '3'], 3, ['ant', 'bee', 'cow', 'dog'], 4).tolist() == [-1, -1, -1]
    assert match_classes(['1', '2', '3'], 3, None, 3).tolist() == [0, 1, 2]
    assert match_classes(['0', '4'], 2, ['ant', 'bee', 'cow', 'dog'], 4).tolist() == [-1, -1]
