"""Small label stores for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokenlabel.labels.store import LabelStore, LabelWriter


def store_of(
    path: Path, keys: Sequence[str], scores: np.ndarray, classes: np.ndarray, sizes: np.ndarray, **changes
) -> LabelStore:
    """A finished store of these maps [n, k, S, S] of images with these sizes [n, 2]; `keys` are sorted."""
    options = {
        'annotator': {'name': 'given', 'digest': '0'},
        'num_classes': 7,
        'view': {'rule': 'squash', 'size': 32},
        'batch_size': 4,
        'images_per_shard': 8,
    }
    settings = {'k': scores.shape[1], 'grid': scores.shape[2:]} | options | changes
    with LabelWriter(path, keys, **settings) as writer:
        for batch in writer.batches():
            rows = slice(batch.start, batch.stop)
            writer.write(batch, scores[rows], classes[rows], sizes[rows])
        writer.finalise()
    return LabelStore(path)


def write_store(
    path: Path,
    keys: Sequence[str],
    num_classes: int,
    k: int,
    grid: int,
    class_names: Sequence[str] | None = None,
    skipped: Sequence[str] = (),
) -> LabelStore:
    """A finished store of random maps, classes distinct within a cell and scores descending; `skipped` have none."""
    rng = np.random.default_rng(0)
    with LabelWriter(
        path,
        keys,
        annotator={'name': 'random', 'digest': '0'},
        num_classes=num_classes,
        k=k,
        grid=(grid, grid),
        view={'rule': 'squash', 'size': 8 * grid},
        class_names=class_names,
    ) as writer:
        for batch in writer.batches():
            shape = (len(batch), num_classes, grid, grid)
            classes = rng.permuted(np.broadcast_to(np.arange(num_classes)[:, None, None], shape), axis=1)[:, :k]
            scores = -np.sort(-rng.normal(5, 2, (len(batch), k, grid, grid)), axis=1)
            sizes = [(0, 0) if writer.keys[row] in skipped else (64, 64) for row in batch]
            writer.write(batch, scores, classes, np.array(sizes))
        writer.finalise()
    return LabelStore(path)
