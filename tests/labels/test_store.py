"""LabelStore and LabelWriter."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlabel.labels.store import LabelStore, LabelWriter

NAME = st.text(st.characters(exclude_characters='\0', exclude_categories=()), min_size=1, max_size=12)


def names(count: int) -> list[str]:
    return [f'class/{number:04d}.jpg' for number in range(count)]


def open_writer(path: Path, keys: list[str], **changes) -> LabelWriter:
    options = {
        'annotator': {'name': 'tiny', 'digest': 'abc'},
        'num_classes': 7,
        'k': 3,
        'grid': (2, 2),
        'view': {'rule': 'squash', 'size': 32},
        'batch_size': 4,
        'images_per_shard': 8,
    }
    return LabelWriter(path, keys, **(options | changes))


def maps_of(writer: LabelWriter, batch: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps that depend on the image's place in the store alone."""
    shape = (len(batch), writer.meta['k'], *writer.meta['grid'])
    place = np.asarray(batch).reshape(-1, 1, 1, 1)
    offsets = np.arange(np.prod(shape[1:])).reshape(1, *shape[1:])
    scores = (place * 0.5 - offsets * 0.25) % 50
    classes = (place * 31 + offsets) % writer.meta['num_classes']
    sizes = np.stack([np.asarray(batch) + 100, np.asarray(batch) + 200], axis=1)
    return scores, classes, sizes


def write_all(writer: LabelWriter) -> None:
    for batch in writer.batches():
        writer.write(batch, *maps_of(writer, batch))


def finished(path: Path, keys: list[str], **changes) -> LabelStore:
    with open_writer(path, keys, **changes) as writer:
        write_all(writer)
        writer.finalise()
    return LabelStore(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@settings(max_examples=25, deadline=None)
@given(
    keys=st.lists(NAME, min_size=1, max_size=30, unique_by=lambda key: key.encode('utf-8', 'surrogatepass')),
    k=st.integers(1, 5),
    side=st.integers(1, 3),
    num_classes=st.sampled_from([5, 2048, 65_536, 65_537, 3_000_000]),
    batch_size=st.integers(1, 7),
    data=st.data(),
)
def test_what_is_written_is_read(keys, k, side, num_classes, batch_size, data):
    keys = [key.encode('utf-8', 'replace').decode() for key in keys]
    keys = sorted(set(keys))
    keys = data.draw(st.permutations(keys))
    with tempfile.TemporaryDirectory() as folder:
        options = {'k': k, 'grid': (side, side), 'num_classes': num_classes, 'batch_size': batch_size}
        store = finished(Path(folder) / 'a store', keys, **options)
        rows = store.indices(keys)
        assert [store.keys[row] for row in rows] == keys
        with open_writer(store.path, keys, **options) as writer:
            scores, classes, sizes = maps_of(writer, range(len(keys)))
        for row in rows:
            label_map = store[int(row)]
            np.testing.assert_array_equal(label_map.scores, scores[row].astype(np.float16))
            np.testing.assert_array_equal(label_map.classes, classes[row])
            assert store.size(int(row)) == tuple(sizes[row])
            np.testing.assert_array_equal(label_map.view.matrix, [[1, 0, 0], [0, 1, 0]])
