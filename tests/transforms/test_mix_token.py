"""MixToken: a box of tokens changes places with the reversed batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenlabel.transforms.mix_token import box_mask, draw_box, kept_share, mix_regions, mix_tokens

grids = st.tuples(st.integers(1, 16), st.integers(1, 16))
seeds = st.integers(0, 2**31)


def drawn(grid: tuple[int, int], seed: int) -> torch.Tensor:
    return draw_box(grid, torch.Generator().manual_seed(seed))


def test_tokens_inside_the_box_come_from_the_reversed_batch():
    tokens = torch.arange(3).view(3, 1, 1, 1).expand(3, 4, 5, 2)
    mixed = mix_tokens(tokens, (1, 2, 3, 5))

    inside = torch.zeros(4, 5, dtype=torch.bool)
    inside[1:3, 2:5] = True
    assert (mixed[0][inside] == 2).all() and (mixed[0][~inside] == 0).all()
    assert (mixed[1] == 1).all()
    assert (mixed[2][inside] == 0).all() and (mixed[2][~inside] == 2).all()


@given(grids, st.integers(1, 5), seeds)
def test_mixing_twice_restores_the_batch(grid, batch, seed):
    tokens = torch.randn(batch, *grid, 2)
    box = drawn(grid, seed)

    assert torch.equal(mix_tokens(mix_tokens(tokens, box), box), tokens)


@given(grids, seeds)
def test_a_drawn_box_lies_in_the_grid(grid, seed):
    y1, x1, y2, x2 = drawn(grid, seed).tolist()

    assert 0 <= y1 <= y2 <= grid[0]
    assert 0 <= x1 <= x2 <= grid[1]


def test_boxes_cover_the_grid_as_cutmix_does():
    """Sides are rounded down to even numbers, as `2 * (int(side * sqrt(1 - lam)) // 2)`, then clipped."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.stack([draw_box((14, 14), generator) for _ in range(4000)])
    sides = boxes[:, 2:] - boxes[:, :2]
    unclipped = (boxes[:, :2] > 0).all(1) & (boxes[:, 2:] < 14).all(1)
    masks = torch.stack([box_mask(box, (14, 14)) for box in boxes])

    assert (sides[unclipped] % 2 == 0).all()
    assert (sides == 0).any() and (sides > 10).any()
    assert (masks.any(0)).all()
    # Expectation by the formula, from 2 million draws: 0.271 of the tokens.
    assert masks.float().mean().item() == pytest.approx(0.271, abs=0.012)


def test_the_same_generator_gives_the_same_box():
    assert torch.equal(drawn((14, 14), 7), drawn((14, 14), 7))


@pytest.mark.parametrize('box', [(1, 2, 3, 5), torch.tensor([1, 2, 3, 5])])
def test_the_kept_share_is_the_area_outside_the_box(box):
    assert kept_share(box, (4, 5)).item() == pytest.approx(1 - 6 / 20)


def test_an_empty_box_changes_nothing():
    tokens = torch.randn(2, 3, 3, 4)

    assert torch.equal(mix_tokens(tokens, (1, 1, 1, 1)), tokens)
    assert kept_share((1, 1, 1, 1), (3, 3)).item() == 1


@given(grids, st.integers(1, 4), seeds)
def test_regions_of_finer_maps_are_those_below_the_tokens(grid, factor, seed):
    tokens = torch.randn(2, *grid, 3)
    box = drawn(grid, seed)
    finer = tokens.repeat_interleave(factor, 1).repeat_interleave(factor, 2)

    expected = mix_tokens(tokens, box).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    assert torch.equal(mix_regions(finer, box, grid), expected)


def test_a_region_that_tokens_do_not_divide_starts_and_ends_with_the_map():
    maps = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 10, 10, 1)
    whole = mix_regions(maps, (0, 0, 3, 3), (3, 3))
    first = mix_regions(maps, (0, 0, 1, 3), (3, 3))

    assert torch.equal(whole, maps.flip(0))
    assert first[0, :, 0, 0].tolist() == [1.0] * 4 + [0.0] * 6


def test_compiles_to_one_graph_for_every_box():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    mix = torch.compile(mix_tokens, backend=backend, fullgraph=True)
    tokens = torch.randn(2, 4, 4, 3)
    for box in ([0, 1, 2, 3], [1, 1, 4, 4], [0, 0, 0, 0]):
        assert torch.equal(mix(tokens, torch.tensor(box)), mix_tokens(tokens, torch.tensor(box)))
    assert len(graphs) == 1
