"""Reads the numeric fixtures: inputs, weights and outputs of the 2021 release (see fixtures/README.md)."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parent / 'fixtures'


def load(name: str) -> dict[str, Tensor]:
    """Tensors of `fixtures/{name}.safetensors` by name."""
    return load_file(FOLDER / f'{name}.safetensors')


def load_json(name: str) -> dict:
    """Contents of `fixtures/{name}.json`."""
    return json.loads((FOLDER / f'{name}.json').read_text())


def cases() -> dict:
    """Constructor arguments behind each fixture."""
    return load_json('cases')


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names start with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
