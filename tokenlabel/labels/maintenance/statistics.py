"""Statistics of a label store: scores, bytes, and how often the best class of a cell is the image's label."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenlabel.labels.class_map import match_classes
from tokenlabel.labels.store import LabelStore, image_keys
from tokenlabel.labels.store.files import file_names, num_shards
from tokenlabel.labels.store.shards import check_rows, class_folder, read_shard

NUM_HALF_VALUES = 2**16
MAX_NAMED = 20  # skipped images


@dataclass(frozen=True)
class Statistics:
    """Statistics of a whole store.

    Attributes:
        num_maps: images that have a map.
        num_bytes: size of all files of the store.
        edges: float [bins + 1], bounds of the histogram's bins, from the lowest to the highest best score.
        counts: int [bins], number of cells whose best score (logit) lies in each bin.
        num_labelled: images whose label is known.
        agreement: share of the cells of these images whose best class is the image's label, in [0, 1]; None if no label
            is known.
    """

    num_maps: int
    num_bytes: int
    edges: np.ndarray
    counts: np.ndarray
    num_labelled: int
    agreement: float | None


def image_labels(store: LabelStore, reader: Any | None = None) -> np.ndarray:
    """Class of each image in the store's numbering, int64 [n]; -1 if unknown.

    Args:
        store: the store; without `reader`, an image's class is its folder, if the store has class names.
        reader: the images with their labels. Classes are matched by name if both have names, else by number if both
            have equally many.
    """
    if reader is None:
        numbers = {name: number for number, name in enumerate(store.class_names or [])}
        return np.array([numbers.get(class_folder(key), -1) for key in store.keys[:]], dtype=np.int64)
    labels = np.full(len(store), -1, dtype=np.int64)
    rows = store.keys.rows(image_keys(reader))
    numbers = match_classes(reader.class_names, reader.num_classes, store.class_names, store.num_classes)
    known = (rows >= 0) & (reader.targets >= 0)
    labels[rows[known]] = numbers[reader.targets[known]]
    return labels


def store_statistics(
    store: LabelStore, labels: np.ndarray, bins: int = 12, on_shard: Callable[[], None] = lambda: None
) -> Statistics:
    """Reads the best score and class of every cell of a store, in threads.

    Args:
        store: the store.
        labels: class of each image, int [n], -1 if unknown; see `image_labels`.
        bins: number of histogram bins.
        on_shard: called after each shard.

    Raises:
        UserError: a file or a map is damaged (named).
    """

    def of_shard(shard: int) -> tuple[np.ndarray, int, int, int]:
        maps = read_shard(store, shard)
        begin = shard * store.meta['images_per_shard']
        check_rows(store, np.arange(begin, begin + len(maps.sizes)), maps)
        there = maps.sizes[:, 0] > 0
        # float16 has only 65,536 values: counting each of them in one pass gives any histogram
        best = np.ascontiguousarray(maps.scores[there, 0]).view(np.uint16).ravel()
        halves = np.bincount(best, minlength=NUM_HALF_VALUES)
        of_images = labels[begin : begin + len(there)]
        known = there & (of_images >= 0)
        agreeing = np.count_nonzero(maps.classes[known, 0] == of_images[known, None, None])
        on_shard()
        return halves, int(there.sum()), int(known.sum()), agreeing

    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(of_shard, range(num_shards(store.meta))))
    halves, maps, known, agreeing = (sum(part) for part in zip(*parts, strict=True))
    edges, counts = _histogram(halves, bins)
    return Statistics(
        num_maps=maps,
        num_bytes=sum((store.path / name).stat().st_size for name in ('meta.json', *file_names(store.meta))),
        edges=edges,
        counts=counts,
        num_labelled=known,
        agreement=agreeing / (known * store.grid[0] * store.grid[1]) if known else None,
    )


def describe_store(store: LabelStore, statistics: Statistics, width: int = 40) -> str:
    """A readable summary of several lines; the histogram's longest bar has `width` characters."""
    meta, skipped = store.meta, store.meta['skipped']
    annotator = ', '.join(f'{name} {value}' for name, value in meta['annotator'].items() if value not in ({}, None))
    rule = ', '.join(f'{name} {value}' for name, value in meta['view'].items() if name != 'rule')
    lines = [
        f'images       {len(store)}, of which {statistics.num_maps} have a map',
        *([f'skipped      {len(skipped)}: {_named(skipped)}'] if skipped else []),
        f'maps         {store.grid[0]}x{store.grid[1]} cells, best {store.k} of {store.num_classes} classes',
        f'annotator    {annotator}',
        f'view         {meta["view"]["rule"]} ({rule})',
        f'size         {statistics.num_bytes} bytes, {statistics.num_bytes / len(store):.0f} per image',
        f'agreement    {_agreement(statistics)}',
        'best scores  per cell:',
    ]
    longest = max(1, statistics.counts.max())
    for low, high, count in zip(statistics.edges, statistics.edges[1:], statistics.counts, strict=False):
        bar = '█' * round(width * count / longest)
        lines.append(f'{low:10.2f} to {high:8.2f}  {bar} {100 * count / max(1, statistics.counts.sum()):.1f} %')
    return '\n'.join(lines)


def _named(keys: list[str]) -> str:
    rest = len(keys) - MAX_NAMED
    return ', '.join(keys[:MAX_NAMED]) + (f' and {rest} more, all named in meta.json' if rest > 0 else '')


def _agreement(statistics: Statistics) -> str:
    if statistics.agreement is None:
        return 'unknown without labels: give the images with --images'
    return (
        f"{100 * statistics.agreement:.1f} % of the cells name their image's class "
        f'({statistics.num_labelled} images of a known class)'
    )


def _histogram(halves: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(edges, counts) from the number of occurrences of each of the 65,536 float16 bit patterns."""
    occurring = np.flatnonzero(halves)
    values = occurring.astype(np.uint16).view(np.float16).astype(np.float64)
    counts, edges = np.histogram(values, bins=bins, weights=halves[occurring])
    return edges, counts.astype(np.int64)
