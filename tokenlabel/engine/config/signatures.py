"""Finds the keys that a class or function takes from a config, from its signature or its source code."""

import ast
import functools
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

EMPTY = inspect.Parameter.empty


@dataclass
class Arguments:
    """The named arguments of a class or function.

    Attributes:
        hints: type hint by name; `EMPTY` if there is none.
        defaults: default value by name.
        any: whether it also takes unknown arguments, through `**kwargs`.
    """

    hints: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    any: bool = False

    @property
    def names(self) -> set[str]:
        return set(self.hints)

    @property
    def required(self) -> list[str]:
        return [name for name in self.hints if name not in self.defaults]


@functools.cache
def arguments_of(target: Callable) -> Arguments:
    """The arguments of `target`; `**kwargs` passed to a base class's constructor add the arguments of that class."""
    if isinstance(target, functools.partial):
        return arguments_of(target.func)
    if not inspect.isclass(target):
        found = _own(target)[0]
        if further := getattr(target, 'forwards_to', None):  # the class that gets the function's `**kwargs`
            others = arguments_of(further)
            found.hints = others.hints | found.hints
            found.defaults = {key: value for key, value in others.defaults.items()} | found.defaults
            found.any = others.any
        return found
    found = Arguments()
    lineage = target.__mro__
    for owner in lineage[:-1]:
        if '__init__' not in vars(owner):
            continue
        own, keywords = _own(owner.__init__, skip=1)
        for name, hint in own.hints.items():
            if name not in found.hints:
                found.hints[name] = hint
                if name in own.defaults:
                    found.defaults[name] = own.defaults[name]
        if keywords is None:
            return found
        names, forwarded = _use_of_keywords(owner.__init__, keywords)
        for name in names:
            found.hints.setdefault(name, EMPTY)
            found.defaults.setdefault(name, EMPTY)
        if not forwarded:
            found.any = True
            return found
    return found


def keys_read(target: Callable, name: str) -> set[str]:
    """Keys that the source code of `target` and its base classes reads from the dict called `name`.

    Finds `name['key']`, `name.get('key')`, `'key' in name` and `name.key`, where `name` is a variable or an attribute.
    """
    owners = inspect.unwrap(target).__mro__[:-1] if inspect.isclass(target) else [target]
    return set().union(*(_keys_read_in(owner, name) for owner in owners))


@functools.cache
def _keys_read_in(owner: Callable, name: str) -> frozenset[str]:
    tree = _source(owner)
    return frozenset(_keys_of(tree, name)) if tree else frozenset()


def _keys_of(tree: ast.AST, name: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _is(node.value, name):
            yield from _texts(node.slice)
        elif isinstance(node, ast.Attribute) and _is(node.value, name):
            if node.attr not in dir(dict):
                yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is(node.func.value, name):
            if node.func.attr in ('get', 'pop', 'setdefault') and node.args:
                yield from _texts(node.args[0])
        elif isinstance(node, ast.Compare) and any(_is(side, name) for side in node.comparators):
            yield from _texts(node.left)


def _own(function: Callable, skip: int = 0) -> tuple[Arguments, str | None]:
    """A function's own arguments, and the name of its `**kwargs`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[skip:]
    except (TypeError, ValueError):  # builtins
        return Arguments(any=True), None
    hints = _hints(function)
    found, keywords = Arguments(), None
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            keywords = parameter.name
        elif parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            hint = hints.get(parameter.name, EMPTY)
            if parameter.default is not EMPTY:
                found.defaults[parameter.name] = parameter.default
                hint = hint | None if parameter.default is None and hint is not EMPTY and _is_type(hint) else hint
            found.hints[parameter.name] = hint
    found.any = keywords is not None
    return found, keywords


def _hints(function: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except Exception:  # type hints of other projects may not resolve
        return {}


def _is_type(hint: object) -> bool:
    try:
        return bool(hint | None)
    except TypeError:
        return False


def _use_of_keywords(function: Callable, keywords: str) -> tuple[set[str], bool]:
    """Names that a constructor reads from its `**kwargs`, and whether the rest goes to the base class only."""
    tree = _source(function)
    if tree is None:
        return set(), False
    names = set(_keys_of(tree, keywords))
    forwarded, uses = 0, sum(isinstance(node, ast.Name) and node.id == keywords for node in ast.walk(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_super_init(node.func):
            given = [keyword.value for keyword in node.keywords if keyword.arg is None]
            forwarded += sum(_mentions(value, keywords) for value in given)
    reads = sum(
        (isinstance(node, ast.Subscript) and _is(node.value, keywords))
        or (isinstance(node, ast.Attribute) and _is(node.value, keywords) and node.attr in ('get', 'pop', 'setdefault'))
        or (isinstance(node, ast.Compare) and any(_is(side, keywords) for side in node.comparators))
        for node in ast.walk(tree)
    )
    return names, forwarded > 0 and forwarded + reads == uses


def _is_super_init(function: ast.AST) -> bool:
    if not isinstance(function, ast.Attribute) or function.attr != '__init__':
        return False
    return isinstance(function.value, ast.Call) and _is(function.value.func, 'super')


def _mentions(value: ast.AST, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(value))


def _is(node: ast.AST, name: str) -> bool:
    return getattr(node, 'id', None) == name or getattr(node, 'attr', None) == name


def _texts(node: ast.AST) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


@functools.cache
def _source(owner: Callable) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(owner))))
    except (OSError, TypeError, SyntaxError):
        return None
