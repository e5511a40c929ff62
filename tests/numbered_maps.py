"""Label stores whose maps tell their place in the store."""

from pathlib import Path

import numpy as np

from tokenlabel.labels.store import LabelStore, LabelWriter


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


def maps_of(meta: dict, batch: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps that depend on the image's place in the store alone."""
    shape = (len(batch), meta['k'], *meta['grid'])
    place = np.asarray(batch).reshape(-1, 1, 1, 1)
    offsets = np.arange(np.prod(shape[1:])).reshape(1, *shape[1:])
    scores = place * 0.5 % 50 - offsets * 0.25
    classes = (place * 31 + offsets) % meta['num_classes']
    sizes = np.stack([np.asarray(batch) + 100, np.asarray(batch) + 200], axis=1)
    return scores, classes, sizes


def maps_with_gaps(meta: dict, batch: range, gaps: frozenset[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same, without a map for the images at `gaps`."""
    maps = maps_of(meta, batch)
    for array in maps:
        array[[place - batch.start for place in gaps if place in batch]] = 0
    return maps


def write_all(writer: LabelWriter, gaps: frozenset[int] = frozenset()) -> None:
    for batch in writer.batches():
        writer.write(batch, *maps_with_gaps(writer.meta, batch, gaps))


def finished(path: Path, keys: list[str], gaps: frozenset[int] = frozenset(), **changes) -> LabelStore:
    with open_writer(path, keys, **changes) as writer:
        write_all(writer, gaps)
        writer.finalise()
    return LabelStore(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
