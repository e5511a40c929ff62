"""docs/annotators.md tells how DenseClassifier's maps arise, in every module of timm."""

import re
from typing import NamedTuple

import pytest
import timm
import torch
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

import tokenlabel.models.lvvit  # noqa: F401  registers our own models with timm
from tests.places import ROOT
from tests.tiny_classifiers import SMALLER, noise, tiny
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator.dense_classifier import DenseClassifier

LINEAR = 'linear'
NORMALISED = 'normalised per location'
HIDDEN = 'hidden layers per location'
ATTENTION = 'attention pooling per location'
PATCHES = 'class head on patch tokens'
TOKEN_HEAD = 'token head'
REFUSED = 'refused'
PAGE = (ROOT / 'docs/annotators.md').read_text()


class Family(NamedTuple):
    """A row of the page: a module of timm, an architecture of it, how its maps arise, and why it is refused if so."""

    module: str
    example: str
    maps: str
    reason: str


ROW = re.compile(r'^\| (\w+) \| (\w+) \| ([^:|]+?)(?:: ([^|]+?))? \|$', re.MULTILINE)
FAMILIES = [Family(*row) for row in ROW.findall(PAGE)]
MODELS = [pytest.param(family, id=f'{family.module}-{family.example}') for family in FAMILIES]


@pytest.mark.skipif(timm.__version__ != '1.0.31', reason='the table is of timm 1.0.31')
def test_every_module_of_timm_is_in_the_table():
    missing = set(timm.list_modules()) - {family.module for family in FAMILIES}
    assert not missing, f'docs/annotators.md does not say how the maps of {sorted(missing)} arise: add rows.'


@pytest.mark.parametrize('family', MODELS)
@torch.no_grad()
def test_the_maps_arise_as_the_table_says(family: Family):
    assert family.example in timm.list_models(module=family.module)
    kwargs, size = small(family.example)
    model, images = tiny(family.example, **kwargs), noise(size)
    if family.maps == REFUSED:
        with pytest.raises(UserError, match=f'cannot annotate: {family.reason}'):
            DenseClassifier(model)(images)
        return

    classifier = DenseClassifier(model)
    image_logits, dense = classifier.classify(images)
    assert dense.shape[:2] == (2, 7)
    assert dense.shape[2] == dense.shape[3] > 1
    features = model.forward_features(images)
    torch.testing.assert_close(image_logits, model.forward_head(features))
    assert way(model, features, image_logits, dense) == family.maps
    if family.maps != TOKEN_HEAD:
        assert_each_location_is_what_the_model_says_where_all_are_alike(model, features, dense)
    # LeViT's downsampling without a shortcut forgets places until it is trained.
    if not has_channels_first(model, features) and family.module != 'levit':
        assert_a_changed_cell_is_found_in_its_place(classifier, images, dense)


def test_the_page_explains_every_way():
    assert len(FAMILIES) > 100
    assert all(f'\n| {family.maps} | ' in PAGE for family in FAMILIES)


def small(architecture: str) -> tuple[dict, int]:
    """Arguments that make an architecture small, and a size of image for it."""
    fixed_size = timm.get_pretrained_cfg(architecture).fixed_input_size
    kwargs, size = SMALLER.get(architecture, ({}, 128 if fixed_size else 96))
    if fixed_size:
        kwargs = {'img_size': size} | kwargs
    return kwargs, size


def way(model: nn.Module, features: Tensor, image_logits: Tensor, dense: Tensor) -> str:
    """How a model's maps arise, seen from outside of DenseClassifier."""
    if hasattr(model, 'aux_head'):
        tokens = model.aux_head(features[:, 1:]).transpose(1, 2).reshape(dense.shape)
        torch.testing.assert_close(dense, tokens)
        return TOKEN_HEAD
    if features.ndim == 3 and features.shape[1] > dense.shape[2] * dense.shape[3]:
        others = features.clone()
        others[:, -dense.shape[2] * dense.shape[3] :] = torch.randn(1, 1, features.shape[2])
        if torch.allclose(model.forward_head(others), image_logits):
            return PATCHES
    if isinstance(getattr(model, 'attn_pool', None), AttentionPoolLatent):
        return ATTENTION
    scale = image_logits.abs().max()
    if (dense.mean(dim=(2, 3)) - image_logits).abs().max() < 1e-4 * scale and is_linear(model, features):
        return LINEAR
    # A normalised vector does not know how long it was.
    if (model.forward_head(features * 4) - image_logits).abs().max() < 1e-2 * scale:
        return NORMALISED
    return HIDDEN


def has_channels_first(model: nn.Module, features: Tensor) -> bool:
    return features.ndim == 4 and features.shape[1] == model.num_features


def is_linear(model: nn.Module, features: Tensor) -> bool:
    """Whether the head is: h(x - y) + h(y) = h(x) + h(0)."""
    x, y = features[:1], features[1:] * 2
    left = model.forward_head(x - y) + model.forward_head(y)
    right = model.forward_head(x) + model.forward_head(y * 0)
    return bool((left - right).abs().max() < 1e-4 * model.forward_head(y).abs().max())


def assert_each_location_is_what_the_model_says_where_all_are_alike(model, features: Tensor, dense: Tensor) -> None:
    side = dense.shape[2]
    for row, column in ((0, 0), (0, side - 1), (side - 1, side // 2)):
        if features.ndim == 3:
            cell = features[:, [features.shape[1] - side * side + row * side + column]]
        elif has_channels_first(model, features):
            cell = features[:, :, row, column, None, None]
        else:
            cell = features[:, None, None, row, column]
        expected = model.forward_head(cell.expand_as(features).contiguous())
        tolerance = 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(dense[:, :, row, column], expected, atol=tolerance, rtol=0)


def assert_a_changed_cell_is_found_in_its_place(classifier: DenseClassifier, images: Tensor, dense: Tensor) -> None:
    side, size = dense.shape[2], images.shape[2]
    row, column = side // 4, side - 1
    marked = images.clone()
    marked[:, :, row * size // side : (row + 1) * size // side, column * size // side :] += 5
    change = (classifier(marked) - dense).norm(dim=(0, 1))
    found_row, found_column = divmod(int(change.argmax()), side)
    # Convolutions with random weights may reach into the neighbour.
    assert abs(found_row - row) <= 1
    assert abs(found_column - column) <= 1
