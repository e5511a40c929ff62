"""Small label stores for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokenlabel.labels.store import LabelStore, LabelWriter


def write_store(
    path: Path, keys: Sequence[str], num_classes: int, k: int, grid: int, class_names: Sequence[str] | None = None
) -> LabelStore:
    """A finished store of random maps, classes distinct within a cell and scores descending."""
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
            writer.write(batch, scores, classes, np.full((len(batch), 2), 64))
        writer.finalise()
    return LabelStore(path)
