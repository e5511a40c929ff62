"""`--cfg-options`: config entries set on the command line, a.b=1 c.d=[2,3]."""

import argparse
import ast
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from tokenlabel.errors import UserError

DEEPEST = 100  # levels of nested dicts
_BRACKETS = {'(': ')', '[': ']', '{': '}'}


class ConfigOptions(argparse.Action):
    """Collects `key=value` pairs in a dict, where the last value of a key wins; anything else is a usage error."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Sequence[str] | str, *_
    ) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for pair in [values] if isinstance(values, str) else values:
            key, equals, value = pair.partition('=')
            if key.count('.') > DEEPEST:
                raise argparse.ArgumentError(self, f'{key[:40]}... has more levels than a config has.')
            if not equals or not all(part.strip() == part and part for part in key.split('.')):
                raise argparse.ArgumentError(self, f'{pair!r} is not KEY=VALUE such as train_dataloader.batch_size=4.')
            try:
                options[key] = parsed(value)
            except UserError as error:
                raise argparse.ArgumentError(self, f'{pair!r} {error}') from error
            except RecursionError as error:
                raise argparse.ArgumentError(self, f'the value of {key} is nested too deep.') from error
        setattr(namespace, self.dest, options)


def parsed(text: str) -> Any:
    """Parses a value from the command line.

    None, True, False, ints and floats are recognised; `[a,b]` and `a,b` are lists, `(a,b)` is a tuple, `{...}` a Python
    dict literal. Anything else, and anything in quotes, is a string.

    Raises:
        UserError: its brackets do not match.
    """
    text = text.strip()
    inner = text[1:-1]
    if len(text) > 1 and text[0] == text[-1] and text[0] in '\'"' and text[0] not in inner:
        return parsed(inner) if inner[:1] in _BRACKETS else inner
    if text[:1] == '{' and text[-1:] == '}':
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise UserError('is not a dict as Python writes it: {"a": 1, "b": [2, 3]}.') from None
    parts = _split(text)
    if text[:1] in ('(', '[') and len(parts) == 1 and text[-1:] == _BRACKETS[text[0]]:
        elements = [parsed(part) for part in _split(inner) if part.strip()]
        return tuple(elements) if text[0] == '(' else elements
    if len(parts) > 1:
        return [parsed(part) for part in parts if part.strip()]
    return _scalar(text)


def merge_options(config: Config, options: Mapping[str, Any], source: str = '') -> None:
    """Sets options in a config; the parts of a dotted key are dict keys or list indices.

    A dict value is merged into the dict of the config, unless it has `_delete_=True`. A parent that is missing or None
    becomes an empty dict.

    Args:
        config: changed in place.
        options: dotted key -> value.
        source: the config's name, for messages.

    Raises:
        UserError: the parent of a key is neither dict nor list, an index is out of range, or two options overlap.
    """
    tree: dict = {}
    for key, value in options.items():
        *parents, last = key.split('.')
        if not all([*parents, last]):
            raise UserError(f'--cfg-options {key} has an empty part: name entries as in train_dataloader.batch_size.')
        node = tree
        for part in parents:
            node = node.setdefault(part, _Branch())
            if not isinstance(node, _Branch):
                raise UserError(f'--cfg-options sets {key} and what holds it: leave one of the two out.')
        if last in node:
            raise UserError(f'--cfg-options sets {key} and something in it: leave one of the two out.')
        node[last] = value
    for key, value in tree.items():
        config[key] = _merged(config.get(key), value, key, source)


class _Branch(dict):
    """Options below one entry, as opposed to a dict that is the value of an option."""


def _merged(old: object, new: object, path: str, source: str) -> object:
    if not isinstance(new, _Branch):
        if isinstance(new, Mapping) and isinstance(old, Mapping) and not new.get('_delete_'):
            return Config._merge_a_into_b(ConfigDict(new), old)
        return {key: value for key, value in new.items() if key != '_delete_'} if isinstance(new, Mapping) else new
    if old is None:
        old = ConfigDict()
    if isinstance(old, Mapping):
        merged = old.copy()
        for key, value in new.items():
            merged[key] = _merged(old.get(key), value, f'{path}.{key}', source)
        return merged
    if not isinstance(old, list | tuple):
        raise UserError(
            f'--cfg-options {path}.{next(iter(new))} leads through {path}, which is {old!r:.60} in {source} and has '
            'no entries.'
        )
    merged = list(old)
    for key, value in new.items():
        if not key.isdecimal() or int(key) >= len(merged):
            raise UserError(
                f'--cfg-options {path}.{key} does not exist: {path} is a list of {len(merged)} entries in {source}, '
                f'numbered from 0.'
            )
        merged[int(key)] = _merged(merged[int(key)], value, f'{path}.{key}', source)
    return type(old)(merged) if type(old) in (list, tuple) else merged


def _split(text: str) -> list[str]:
    """Splits at the commas outside brackets and quotes.

    Raises:
        UserError: brackets do not match in a text that has a comma or begins or ends with a bracket.
    """
    parts, start, closing, quote = [], 0, [], ''
    balanced = True
    for position, character in enumerate(text):
        if quote:
            quote = '' if character == quote else quote
        elif character in '\'"' and text.find(character, position + 1) > 0:
            quote = character
        elif character in _BRACKETS:
            closing.append(_BRACKETS[character])
        elif character in _BRACKETS.values():
            balanced &= bool(closing) and closing.pop() == character
        elif character == ',' and not closing:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    looks_like_list = ',' in text or text[:1] in _BRACKETS or text[-1:] in _BRACKETS.values()
    if looks_like_list and (closing or not balanced):
        raise UserError('has brackets that do not match: write lists as [1,2] and tuples as (1,2).')
    return parts


def _scalar(text: str) -> Any:
    named = {'true': True, 'false': False, 'none': None}
    if text.lower() in named:
        return named[text.lower()]
    for kind in (int, float):
        try:
            return kind(text) if '_' not in text else text
        except ValueError:
            pass
    return text
