"""CutMix and Mixup of pixels, against the slow reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import mix_images as reference
from tokenlabel.objective.targets import image_targets, token_targets
from tokenlabel.transforms.mix_images import ImageMix, draw_mix
from tokenlabel.transforms.view import View

sides = st.integers(1, 12)


@st.composite
def mixes(draw) -> ImageMix:
    size = draw(st.tuples(sides, sides))
    (y1, y2), (x1, x2) = (sorted(draw(st.tuples(st.integers(0, side), st.integers(0, side)))) for side in size)
    return ImageMix(draw(st.floats(0, 1)), (y1, x1, y2, x2), size)


def own_pixels(mix: ImageMix) -> torch.Tensor:
    return reference.own_pixels(mix.lam, mix.box, mix.size)


@given(mixes(), st.integers(1, 5))
def test_images_are_mixed_with_the_reversed_batch(mix, batch):
    images = torch.randn(batch, 3, *mix.size, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    expected = reference.mixed_images(images.double(), own_pixels(mix)).float()
    torch.testing.assert_close(mix.images(images), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(images, before)


@given(mixes(), st.tuples(sides, sides))
def test_a_token_keeps_the_share_that_its_area_shows(mix, grid):
    expected = reference.own_tokens(own_pixels(mix), grid).float()
    torch.testing.assert_close(mix.kept_by_tokens(grid), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mix.kept(), own_pixels(mix).mean().float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize('mix', [ImageMix(1.0, (3, 0, 9, 5), (12, 10)), ImageMix(0.3, (0, 0, 0, 0), (12, 10))])
@pytest.mark.parametrize('kind', ['token', 'image'])
def test_sparse_targets_are_mixed_as_dense_ones_are(mix, kind):
    generator, grid = torch.Generator().manual_seed(0), (4, 3)
    targets = image_targets(torch.tensor([1, 4, 4, 0]), grid, 7, smoothing=0.1)
    if kind == 'token':
        scores = torch.randn(4, 3, 5, 5, generator=generator) * 3
        classes = torch.rand(4, 7, 5, 5, generator=generator).topk(3, 1).indices
        views = torch.stack([View.crop(0.1 * i, 0, 0.5, 0.9).tensor() for i in range(4)])
        targets = token_targets(scores, classes, views, grid, 7, smoothing=0.1)
    own = own_pixels(mix)
    mixed = targets.tokens.mixed(mix.kept_by_tokens(grid))
    expected = reference.mixed_targets(targets.tokens.dense(), reference.own_tokens(own, grid).float())
    torch.testing.assert_close(mixed.dense(), expected)
    assert mixed.ids.shape[-1] == 2 * targets.tokens.ids.shape[-1]
    expected = reference.mixed_targets(targets.cls.dense(), own.mean().float()[None])
    torch.testing.assert_close(targets.cls.mixed(mix.kept()).dense(), expected)


@pytest.mark.parametrize(
    ('alphas', 'cut_expected'),
    [((1.0, 0.0, 0.5), 1.0), ((0.0, 0.8, 0.5), 0.0), ((1.0, 0.8, 1.0), 1.0), ((1.0, 0.8, 0.0), 0.0)],
)
def test_what_is_off_is_not_drawn(alphas, cut_expected):
    torch.manual_seed(0)
    drawn = [draw_mix((16, 16), *alphas) for _ in range(20)]
    assert all((mix.lam == 1) == bool(cut_expected) for mix in drawn)
    assert any(mix.box != (0, 0, 0, 0) for mix in drawn) == bool(cut_expected)


def test_both_are_drawn_as_often_as_asked():
    torch.manual_seed(0)
    cut = torch.tensor([float(draw_mix((16, 16), 1.0, 0.8, switch_prob=0.25).lam == 1) for _ in range(2000)])
    assert cut.mean().item() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize('alpha', [0.2, 1.0, 5.0])
def test_alpha_says_how_even_mixtures_are(alpha):
    """lam ~ Beta(alpha, alpha) has the variance 1 / (8 alpha + 4)."""
    torch.manual_seed(0)
    lam = torch.tensor([draw_mix((8, 8), mixup=alpha).lam for _ in range(4000)])
    assert lam.mean().item() == pytest.approx(0.5, abs=0.03)
    assert lam.var().item() == pytest.approx(1 / (8 * alpha + 4), rel=0.15)


@given(st.tuples(sides, sides), st.integers(0, 2**31))
def test_a_drawn_box_lies_in_the_image(size, seed):
    torch.manual_seed(seed)
    y1, x1, y2, x2 = draw_mix(size, cutmix=1.0).box
    assert 0 <= y1 <= y2 <= size[0] and 0 <= x1 <= x2 <= size[1]
