"""Names of classes as people read them."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from timm.data import ImageNetInfo

_SYNSET = re.compile(r'n\d{8}')


def readable_names(names: Sequence[str]) -> list[str]:
    """ImageNet's ids of synsets in words, `sandal` for `n04133789`; other names as they are.

    Where several ids have one word, each has its id beside it: `crane (n02012849)`.
    """
    names = [str(name) for name in names]
    words = [_word(name) if _SYNSET.fullmatch(name) else name for name in names]
    repeated = {word for word, count in Counter(words).items() if count > 1}
    pairs = zip(names, words, strict=True)
    return [f'{word} ({name})' if word in repeated and word != name else word for name, word in pairs]


@cache
def _word(synset: str) -> str:
    """The first word of a synset, as timm has them; the id itself where it has none."""
    try:
        description = _imagenet().label_name_to_description(synset)
    except (KeyError, ValueError):
        return synset
    return (description or synset).split(',')[0].strip() or synset


@cache
def _imagenet() -> ImageNetInfo:
    return ImageNetInfo('imagenet-22k')
