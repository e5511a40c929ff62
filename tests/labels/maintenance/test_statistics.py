"""What a store holds, in numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.label_stores import store_of
from tokenlabel.labels.maintenance.statistics import describe_store, image_labels, store_statistics

KEYS = ['cat/1.jpg', 'cat/2.jpg', 'dog/1.jpg', 'nested/dog/2.jpg', 'unknown/1.jpg', 'zebra.jpg']
NAMES = ['cat', 'dog']
UNKNOWN = np.full(6, -1)


@pytest.fixture
def store(tmp_path):
    """Six images, the second skipped; the best class is dog everywhere but in one cell of the first image."""
    classes = np.zeros((6, 2, 2, 2), int)
    classes[:, 0] = 1
    classes[0, :, 0, 0] = 0, 1
    scores = np.zeros((6, 2, 2, 2))
    scores[:, 0] = np.arange(6)[:, None, None]
    sizes = np.full((6, 2), 50)
    sizes[1] = 0
    settings = {'num_classes': 2, 'class_names': NAMES, 'batch_size': 2, 'images_per_shard': 2}
    return store_of(tmp_path / 'store', KEYS, scores, classes, sizes, **settings)


def test_an_image_s_label_is_the_folder_it_lies_in(store):
    assert image_labels(store).tolist() == [0, 0, 1, 1, -1, -1]


@pytest.mark.parametrize(
    ('class_to_idx', 'targets', 'expected'),
    [
        ({'dog': 0, 'cat': 1}, [1, 0, 0, -1], [0, -1, 1, -1, 1, -1]),
        ({'dog': 0, 'elk': 1}, [1, 0, 0, -1], [-1, -1, 1, -1, 1, -1]),
        ({}, [1, 0, 0, -1], [1, -1, 0, -1, 0, -1]),
        ({}, [2, 0, 0, -1], [-1] * 6),
    ],
)
def test_images_know_their_labels_better(store, class_to_idx, targets, expected):
    reader = SimpleNamespace(
        filenames=lambda: ['cat/1.jpg', 'dog/1.jpg', 'unknown/1.jpg', 'elk/7.jpg'],
        class_names=list(class_to_idx),
        targets=np.array(targets),
        num_classes=len(class_to_idx) or max(targets) + 1,
    )
    assert image_labels(store, reader).tolist() == expected


def test_agreement_is_over_the_cells_of_images_with_a_map_and_a_label(store):
    statistics = store_statistics(store, image_labels(store))
    assert (statistics.num_maps, statistics.num_labelled) == (5, 3)
    assert statistics.agreement == (1 + 4 + 4) / 12


def test_without_labels_there_is_no_agreement(store):
    statistics = store_statistics(store, UNKNOWN)
    assert statistics.agreement is None
    assert 'unknown without labels' in describe_store(store, statistics)


def test_the_histogram_counts_the_best_score_of_every_cell(store):
    statistics = store_statistics(store, image_labels(store), bins=5)
    np.testing.assert_allclose(statistics.edges, np.arange(6))
    assert statistics.counts.tolist() == [4, 0, 4, 4, 8]


def test_a_description_names_what_was_skipped_and_draws_a_bar_per_bin(store):
    text = describe_store(store, store_statistics(store, image_labels(store), bins=3), width=10)
    assert 'skipped      1: cat/2.jpg' in text
    assert '75.0 % of the cells' in text
    assert 'view         squash (size 32)' in text
    assert [line.count('█') for line in text.splitlines()[-3:]] == [5, 10, 10]


def test_of_many_skipped_images_the_first_are_named(tmp_path):
    keys = [f'a/{number:02d}.jpg' for number in range(30)]
    sizes = np.zeros((30, 2))
    sizes[29] = 9
    maps = np.zeros((30, 1, 2, 2))
    store = store_of(tmp_path / 'store', keys, maps, maps, sizes)
    text = describe_store(store, store_statistics(store, np.full(30, -1)))
    assert '29: a/00.jpg, ' in text
    assert 'a/19.jpg and 9 more, all named in meta.json' in text


def test_every_shard_is_reported(store):
    shards = []
    store_statistics(store, image_labels(store), on_shard=lambda: shards.append(1))
    assert len(shards) == 3
