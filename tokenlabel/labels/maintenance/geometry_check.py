"""Finds whether a store's maps are upright and what part of the image they cover, by annotating some images again.

Imported maps may have rows and columns exchanged, or cover the centre crop although the record says the whole image.
Training would not fail but only get worse. This check compares the stored maps of some images with new maps of the
whole image and of its centre crop, upright and transposed. The geometry that fits clearly best is the store's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import Annotator
from tokenlabel.labels.source_images import image_size, open_rgb
from tokenlabel.labels.store import LabelStore, image_keys
from tokenlabel.labels.view_rule import CenterCrop, Squash

MIN_IMAGES = 8
MIN_LEAD = 0.01  # of correlation
MIN_ERRORS = 3.0  # standard errors
CANDIDATES = 16  # images considered per image annotated
BATCH_SIZE = 16
FLAT = 1e-4  # norm of a map's deviations from its mean, below which the map is constant


class Geometry(NamedTuple):
    """A possible geometry of a store's maps; `rule` is the name of a view rule."""

    rule: str
    transposed: bool

    def __str__(self) -> str:
        covered = 'whole image' if self.rule == Squash.name else 'centre crop'
        return f'{covered}, {"transposed" if self.transposed else "upright"}'


GEOMETRIES = tuple(Geometry(rule, turned) for rule in (Squash.name, CenterCrop.name) for turned in (False, True))


@dataclass(frozen=True)
class GeometryCheck:
    """Result of `check_geometry`.

    Attributes:
        scores: float [images, 4], agreement in [-1, 1] of each image's maps under each of `GEOMETRIES`.
        geometry: the geometry that fits clearly best, or None.
        reason: if `geometry` is None, one sentence that says why; else empty.
    """

    scores: np.ndarray
    geometry: Geometry | None
    reason: str = ''

    def table(self) -> str:
        """Mean scores with their standard errors, a line each."""
        means = self.scores.mean(0)
        errors = self.scores.std(0, ddof=1) / np.sqrt(len(self.scores)) if len(self.scores) > 1 else np.zeros(4)
        return '\n'.join(
            f'{geometry!s:25} {mean:6.3f} ± {error:.3f}{"  <" if geometry == self.geometry else ""}'
            for geometry, mean, error in zip(GEOMETRIES, means, errors, strict=True)
        )


def check_geometry(
    store: LabelStore,
    reader: Any,
    annotator: Annotator,
    *,
    crop_pct: float = 1.0,
    samples: int = 64,
    device: torch.device | str = 'cpu',
    seed: int = 0,
    on_image: Callable[[], None] = lambda: None,
) -> GeometryCheck:
    """Compares a store with new maps of an annotator, which need not be the one that made the store.

    Args:
        store: recorded with the rule 'squash' or 'center-crop'.
        reader: images of the store, or some of them.
        annotator: an annotator with the store's classes.
        crop_pct: share of the centre crop, in (0, 1].
        samples: number of images to annotate. They are the least square images of a larger random sample, because
            only these distinguish the whole image from a centre crop.
        device: where to annotate.
        seed: seed of the random sample.
        on_image: called after each annotated image.

    Raises:
        UserError: the store has another rule, classes or images, or an image cannot be read.
    """
    if store.view_rule.name not in (Squash.name, CenterCrop.name):
        raise UserError(
            f'{store.path} has the view rule {store.view_rule.name}: only squash and center-crop are compared.'
        )
    if annotator.dense.num_classes != store.num_classes:
        raise UserError(
            f'{store.path} has {store.num_classes} classes, the annotator {annotator.dense.num_classes}: '
            'give an annotator of the same classes.'
        )
    dense = annotator.dense.to(device)
    rules = Squash(annotator.size), CenterCrop(annotator.size, crop_pct)
    chosen = _choose(store, reader, samples, seed)
    scores = []
    for begin in range(0, len(chosen), BATCH_SIZE):
        batch = chosen[begin : begin + BATCH_SIZE]
        images = [open_rgb(reader, index) for _, index in batch]
        stored = [_distribution(store[row].scores, store[row].classes, store.num_classes) for row, _ in batch]
        agreements = np.empty((len(batch), len(GEOMETRIES)))
        for rule in rules:
            pixels = torch.stack([rule.pixels(image) for image in images])
            fresh = [_top(logits, store) for logits in _annotate(dense, pixels, annotator, device)]
            for column, geometry in enumerate(GEOMETRIES):
                if geometry.rule == rule.name:
                    turned = [maps.transpose(1, 2) if geometry.transposed else maps for maps in fresh]
                    agreements[:, column] = [agreement(one, two) for one, two in zip(stored, turned, strict=True)]
        scores.append(agreements)
        for _ in batch:
            on_image()
    return judge(np.concatenate(scores))


def agreement(one: Tensor, other: Tensor) -> float:
    """Spatial correlation of two maps of class probabilities [C, S, S], in [-1, 1].

    Each class's mean over the map is subtracted first, so only the position of the classes counts and not the content
    of the image as a whole. A constant map has the agreement 0 with every map.
    """
    one, other = (maps - maps.mean((1, 2), keepdim=True) for maps in (one, other))
    norms = one.norm(), other.norm()
    return float((one * other).sum() / (norms[0] * norms[1])) if min(norms) > FLAT else 0.0


def judge(scores: np.ndarray) -> GeometryCheck:
    """Chooses the geometry by paired differences over images, which cancel the difficulty of each image.

    The best geometry must exceed every other one, and zero, by more than three standard errors and by more than 0.01.

    Args:
        scores: [images, 4].
    """
    if len(scores) < MIN_IMAGES:
        return GeometryCheck(scores, None, f'{len(scores)} images are too few to tell: give at least {MIN_IMAGES}.')
    means = scores.mean(0)
    best = int(means.argmax())
    if not _leads(scores[:, best]):
        reason = (
            f'No geometry fits, the best ({GEOMETRIES[best]}) with an agreement of {means[best]:.3f}: the store comes '
            'from a very different annotator or from other images, or its maps are constant.'
        )
        return GeometryCheck(scores, None, reason)
    rivals = [i for i in range(len(GEOMETRIES)) if i != best and not _leads(scores[:, best] - scores[:, i])]
    if rivals:
        rival = max(rivals, key=lambda i: means[i])
        return GeometryCheck(scores, None, _tie(GEOMETRIES[best], GEOMETRIES[rival], means[best], means[rival]))
    return GeometryCheck(scores, GEOMETRIES[best])


def contradiction(store: LabelStore, geometry: Geometry) -> str | None:
    """One sentence with a remedy if a store's record contradicts the geometry found, else None."""
    recorded = Geometry(store.view_rule.name, False)
    if geometry == recorded:
        return None
    said = f'{store.path} is recorded as {recorded}, but its maps are {geometry}'
    if 'transposed' not in store.meta['annotator']:
        return f'{said}: annotate the images again with --view {geometry.rule}.'
    turned = store.meta['annotator']['transposed'] != geometry.transposed
    return f'{said}: import them again with --view {geometry.rule} and with{"" if turned else "out"} --transposed.'


def _leads(differences: np.ndarray) -> bool:
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return differences.mean() > max(MIN_ERRORS * error, MIN_LEAD)


def _tie(best: Geometry, rival: Geometry, best_mean: float, rival_mean: float) -> str:
    reasons = []
    if best.rule != rival.rule:
        reasons.append('the images are so close to square that the crop is nearly the whole image')
    if best.transposed != rival.transposed:
        reasons.append('the maps look the same when transposed')
    return (
        f'"{best}" and "{rival}" cannot be told apart ({best_mean:.3f} and {rival_mean:.3f}): perhaps '
        f'{" and ".join(reasons)}; try more --samples or other images.'
    )


def _choose(store: LabelStore, reader: Any, samples: int, seed: int) -> list[tuple[int, int]]:
    """(row of the store, index in the reader) of images far from square."""
    rows = store.indices(image_keys(reader))
    known = np.flatnonzero(rows >= 0)
    if not len(known):
        raise UserError(f'{store.path} has no map of any of these images: give the images that it was made for.')
    candidates = np.random.default_rng(seed).permutation(known)[: CANDIDATES * samples].tolist()
    stretch = [abs(np.log(width / height)) for width, height in (image_size(reader, i) for i in candidates)]
    order = np.argsort(-np.array(stretch), kind='stable')[:samples]
    return [(int(rows[candidates[i]]), candidates[i]) for i in order]


def _annotate(dense: Any, pixels: Tensor, annotator: Annotator, device: torch.device | str) -> Tensor:
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in (annotator.mean, annotator.std))
    return dense((pixels.to(device) - mean) / std).cpu()


def _top(logits: Tensor, store: LabelStore) -> Tensor:
    """Class probabilities [C, S, S] from dense logits, reduced to the store's grid and k."""
    if logits.shape[-2:] != store.grid:
        logits = F.interpolate(logits[None], store.grid, mode='bilinear', antialias=True)[0]
    scores, classes = logits.topk(store.k, dim=0)
    return _distribution(scores, classes, store.num_classes)


def _distribution(scores: Sequence, classes: Sequence, num_classes: int) -> Tensor:
    """Softmax over all classes [C, S, S]; unlisted classes have score 0, as in training."""
    scores = torch.as_tensor(scores).float()
    dense = torch.zeros(num_classes, *scores.shape[1:])
    return dense.scatter_(0, torch.as_tensor(np.asarray(classes, dtype=np.int64)), scores).softmax(0)
