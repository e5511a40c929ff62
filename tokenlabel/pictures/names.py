"""Readable class names."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from timm.data import ImageNetInfo

_SYNSET = re.compile(r'n\d{8}')


def readable_names(names: Sequence[str]) -> list[str]:
    """Replaces ImageNet's synset ids by words, `n04133789` by `sandal`; keeps other names.

    Ids with the same word keep their id in parentheses: `crane (n02012849)`.
    """
    names = [str(name) for name in names]
    words = [_word(name) if _SYNSET.fullmatch(name) else name for name in names]
    repeated = {word for word, count in Counter(words).items() if count > 1}
    pairs = zip(names, words, strict=True)
    return [f'{word} ({name})' if word in repeated and word != name else word for name, word in pairs]


@cache
def _word(synset: str) -> str:
    """timm's first word for a synset; the id itself if there is none."""
    try:
        description = _imagenet().label_name_to_description(synset)
    except (KeyError, ValueError):
        return synset
    return (description or synset).split(',')[0].strip() or synset


@cache
def _imagenet() -> ImageNetInfo:
    return ImageNetInfo('imagenet-22k')
