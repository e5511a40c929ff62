"""Token targets: the fixtures of the release, the definition in dense loops, and their symmetries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.fixtures_io import cases, load
from tests.reference import targets as reference
from tokenlabel.errors import UserError
from tokenlabel.objective.targets import distillation_targets, image_targets, sample_counts, token_targets
from tokenlabel.transforms.view import View, compose, invert

CASES = cases()['targets']


def random_maps(batch: int, k: int, size: int, num_classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores, some negative, and k different classes per cell, [B, k, S, S] each."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch, k, size, size, generator=generator) * 3 + 2
    return scores, torch.rand(batch, num_classes, size, size, generator=generator).topk(k, 1).indices


def crop_views(crop_tlhw: Tensor) -> Tensor:
    return torch.stack(
        [View.crop(left, top, width, height).tensor() for top, left, height, width in crop_tlhw.tolist()]
    )


def batched(*views: View) -> Tensor:
    return torch.stack([view.tensor() for view in views])


def assert_agrees(result: Tensor, expected: Tensor, tolerance: float) -> None:
    """To `tolerance` of the largest magnitude."""
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= tolerance * expected.abs().max()


crops = st.builds(
    lambda left, top, right, bottom: View.crop(left, top, (1 - left) * right, (1 - top) * bottom),
    *[st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.1, 1), st.floats(0.1, 1)],
)
rotations = st.builds(
    lambda degrees, aspect: View.pixel_affine(
        np.array([[1, -math.tan(math.radians(degrees)), 0], [math.sin(math.radians(degrees)), 1, 0]]), (aspect, 1)
    ),
    *[st.floats(-40, 40), st.floats(0.5, 2)],
)
any_views = st.builds(
    lambda crop, mirrored, rotation: crop @ (View.flip() if mirrored else View.identity()) @ rotation,
    *[crops, st.booleans(), st.one_of(st.just(View.identity()), rotations)],
)
grids = st.tuples(st.integers(1, 5), st.integers(1, 5))


class TestRelease:
    """Agreement with the numbers of the 2021 release."""

    @pytest.mark.parametrize('geometry', ['exact', 'released'])
    @pytest.mark.parametrize('name', CASES)
    def test_targets(self, name, geometry):
        case, data = CASES[name], load(f'targets_{name}')
        prefix = {'exact': 'true', 'released': 'released'}[geometry]
        tolerance = 5e-5 if 'c1000' in name else 1e-5
        arguments = {
            'grid': (case['label_size'], case['label_size']),
            'num_classes': case['num_classes'],
            'smoothing': case['smoothing'],
            'geometry': geometry,
        }
        scores, classes, views = data['scores'], data['classes'], crop_views(data['crop_top_left_height_width'])
        cls, tokens = token_targets(scores, classes, views, **arguments).dense()

        assert_agrees(cls, data[f'{prefix}.class_token_target'], tolerance)
        assert_agrees(tokens, data[f'{prefix}.token_target'], tolerance)
        for i in range(len(scores)):
            one = token_targets(scores[i : i + 1], classes[i : i + 1], views[i : i + 1], **arguments).dense()
            torch.testing.assert_close(one[0], cls[i : i + 1])
            torch.testing.assert_close(one[1], tokens[i : i + 1])

    @pytest.mark.parametrize('name', CASES)
    def test_image_labels(self, name):
        case, data = CASES[name], load(f'targets_{name}')
        targets = image_targets(data['image_label'].long(), (3, 2), case['num_classes'], case['smoothing'])
        cls, tokens = targets.dense()

        assert_agrees(cls, data['true.image_target'], 1e-6)
        assert_agrees(tokens, data['true.image_target'][:, None].expand(-1, 6, -1), 1e-6)

    def test_released_geometry_reads_the_bottom_left_for_the_top_right(self):
        scores, classes = random_maps(1, 2, 6, 5)
        top_right, bottom_left = View.crop(0.5, 0, 0.5, 0.5), View.crop(0, 0.5, 0.5, 0.5)
        released = token_targets(scores, classes, batched(top_right), (3, 3), 5, geometry='released').dense()
        exact = token_targets(scores, classes, batched(bottom_left), (3, 3), 5).dense()

        torch.testing.assert_close(released, exact)

    def test_released_geometry_mirrors_the_map_first(self):
        """A mirrored crop reads the mirrored map at the exchanged crop of the mirrored image."""
        scores, classes = random_maps(1, 2, 6, 5)
        crop_of_mirrored = View.crop(0.1, 0.3, 0.4, 0.6)
        arguments = {'grid': (3, 3), 'num_classes': 5, 'geometry': 'released'}
        view = View.flip() @ crop_of_mirrored

        mirrored_map = token_targets(scores.flip(3), classes.flip(3), batched(crop_of_mirrored), **arguments)
        mirrored_view = token_targets(scores, classes, batched(view), **arguments)
        torch.testing.assert_close(mirrored_view.dense(), mirrored_map.dense())

    def test_released_geometry_takes_the_map_to_cover_the_whole_image(self):
        scores, classes = random_maps(1, 2, 6, 5)
        arguments = {'view': batched(View.identity()), 'grid': (3, 3), 'num_classes': 5, 'geometry': 'released'}
        centre = batched(View.crop(0.2, 0.2, 0.6, 0.6))

        with_map_view = token_targets(scores, classes, map_view=centre, **arguments)
        torch.testing.assert_close(with_map_view.dense(), token_targets(scores, classes, **arguments).dense())

    def test_released_geometry_refuses_a_rotated_view(self):
        scores, classes = random_maps(2, 2, 6, 5)
        views = batched(View.identity(), View.affine([[1, 0.1, 0], [0, 1, 0]]))
        with pytest.raises(UserError, match='sheared or rotated'):
            token_targets(scores, classes, views, (3, 3), 5, geometry='released')


class TestDefinition:
    """Agreement with dense targets by the definition."""

    @settings(max_examples=25)
    @given(
        st.lists(st.tuples(any_views, crops), min_size=1, max_size=3),
        grids,
        *[st.integers(1, 4), st.integers(1, 7), st.integers(4, 30), st.sampled_from([0.0, 0.1])],
    )
    def test_any_view_map_grid_and_k(self, views, grid, k, size, num_classes, smoothing):
        scores, classes = random_maps(len(views), k, size, num_classes)
        views, map_views = ([View(view.tensor().numpy()) for view in column] for column in zip(*views, strict=True))
        targets = token_targets(
            scores.double(), classes, batched(*views), grid, num_classes, smoothing, map_view=batched(*map_views)
        )
        to_map = [map_view.inverse() @ view for map_view, view in zip(map_views, views, strict=True)]
        to_map = torch.tensor(np.stack([view.matrix for view in to_map]))
        expected = reference.token_targets(scores, classes, to_map, grid, num_classes, smoothing)

        torch.testing.assert_close(targets.dense(), expected, atol=1e-5, rtol=1e-5)

    @settings(max_examples=15)
    @given(any_views, grids, st.integers(1, 6), st.sampled_from([0.5, 1.0, 3.0]))
    def test_the_best_k_scores_at_a_temperature(self, view, grid, k, temperature):
        scores, classes = random_maps(2, 6, 5, 20)
        scores = scores.sort(1, descending=True).values
        views = batched(view, View.identity())
        targets = token_targets(scores.double(), classes, views, grid, 20, 0.1, k=k, temperature=temperature)
        expected = reference.token_targets(scores, classes, views.double(), grid, 20, 0.1, k, temperature)

        torch.testing.assert_close(targets.dense(), expected, atol=1e-5, rtol=1e-5)

    @settings(max_examples=25)
    @given(st.lists(crops, min_size=1, max_size=4), grids, st.integers(2, 9))
    def test_is_roi_align_for_crops(self, views, grid, size):
        scores, classes = random_maps(len(views), 3, size, 11)
        views = batched(*views)
        crop_tlhw = views.double()[:, [1, 0, 1, 0], [2, 2, 1, 0]]
        cells_per_token = crop_tlhw[:, 2:] * size / torch.tensor(grid)
        # RoIAlign counts its samples without slack: a hair above a whole number it takes one more
        assume(((cells_per_token - cells_per_token.round()).abs() > 1e-5).all())
        expected = reference.roi_align_targets(scores, classes, crop_tlhw, grid, 11, 0.1)

        result = token_targets(scores.double(), classes, views, grid, 11, 0.1).dense()
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)

    @given(
        st.integers(1, 9),
        st.integers(1, 24),
        st.integers(1, 16),
        st.integers(1, 40),
        st.integers(0, 300),
        st.booleans(),
    )
    def test_boxes_of_a_whole_number_of_cells_get_as_many_samples(self, cells, size, rows, pixels, border, flips):
        """A map of `size` cells, and a crop in which each of `rows` tokens covers `cells` of them."""
        image, annotated, crop = size * pixels + border, size * pixels, cells * rows * pixels
        map_view = View.crop(border / 2 / image, border / 3 / image, annotated / image, annotated / image)
        view = View.crop(7 / image, 3 / image, crop / image, crop / image)
        if flips:
            view = view @ View.flip() @ View.pixel_affine([[0, -1, 31], [1, 0, 0]], (31, 31))
        to_map = compose(invert(batched(map_view)), batched(view))
        sides = to_map[0, :, :2].T * size / rows
        assert sample_counts(sides).tolist() == [cells, cells]

    @settings(max_examples=25)
    @given(any_views, grids, st.integers(1, 8))
    def test_targets_of_a_flipped_image_are_the_flipped_targets(self, view, grid, size):
        scores, classes = random_maps(1, 3, size, 9)
        cls, tokens = token_targets(scores, classes, batched(view), grid, 9).dense()
        flipped_cls, flipped_tokens = token_targets(scores, classes, batched(view @ View.flip()), grid, 9).dense()

        torch.testing.assert_close(flipped_cls, cls, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            flipped_tokens.unflatten(1, grid).flip(2).flatten(1, 2), tokens, atol=1e-5, rtol=1e-4
        )

    def test_a_view_of_the_annotated_area_reads_the_map_cell_by_cell(self):
        """A 4x4 grid over exactly what a 4x4 map covers: every token is one cell."""
        scores, classes = random_maps(1, 2, 4, 6)
        centre = View.crop(0.2, 0.1, 0.5, 0.6)
        targets = token_targets(scores, classes, batched(centre), (4, 4), 6, map_view=batched(centre))

        cells = reference.dense_maps(scores, classes, 6).flatten(2).transpose(1, 2).softmax(-1)
        torch.testing.assert_close(targets.tokens.dense(), cells.float(), atol=1e-5, rtol=1e-5)

    def test_outside_the_annotated_area_the_nearest_cell_answers(self):
        scores, classes = random_maps(1, 2, 4, 6)
        beside = View.crop(1.5, -2, 0.5, 0.5)
        targets = token_targets(scores, classes, batched(beside), (2, 2), 6)

        corner = reference.dense_maps(scores, classes, 6)[:, None, :, 0, 3].softmax(-1).expand(-1, 4, -1)
        torch.testing.assert_close(targets.tokens.dense(), corner.float(), atol=1e-5, rtol=1e-5)

    def test_each_image_of_a_batch_has_its_own_targets(self):
        scores, classes = random_maps(3, 3, 7, 40)
        views = batched(View.identity(), View.crop(0, 0, 0.1, 0.1), View.affine([[2, 0.5, -0.4], [-0.5, 2, 0.1]]))
        cls, tokens = token_targets(scores, classes, views, (2, 4), 40).dense()
        for i in range(3):
            one = [maps[i : i + 1] for maps in (scores, classes, views)]
            torch.testing.assert_close(token_targets(*one, (2, 4), 40).dense(), (cls[i : i + 1], tokens[i : i + 1]))


class TestForm:
    """Sparse targets, number formats and devices."""

    def test_token_targets_stay_sparse(self):
        """A 14x14 grid over the whole of an 18x18 map: at most 3x3 cells of 5 classes under a token."""
        scores, classes = random_maps(2, 5, 18, 1000)
        targets = token_targets(scores, classes, batched(View.identity(), View.flip()), (14, 14), 1000)

        assert targets.tokens.ids.shape == (2, 196, 45)

    def test_targets_sum_to_one_and_to_a_little_more_when_smoothed(self):
        scores, classes = random_maps(2, 3, 5, 10)
        views = batched(View.identity(), View.crop(0, 0, 0.2, 0.2))
        plain = token_targets(scores, classes, views, (2, 2), 10)
        smoothed = token_targets(scores, classes, views, (2, 2), 10, smoothing=0.1)

        torch.testing.assert_close(plain.tokens.total(), torch.ones(2, 4))
        torch.testing.assert_close(smoothed.tokens.total(), torch.full((2, 4), 1.01))
        torch.testing.assert_close(smoothed.tokens.total(), smoothed.tokens.dense().sum(-1))
        torch.testing.assert_close(smoothed.cls.total(), torch.full((2, 1), 1.01))

    @pytest.mark.parametrize('class_type', [torch.uint8, torch.uint16, torch.int32, torch.int64])
    def test_maps_as_a_store_holds_them(self, class_type):
        scores, classes = random_maps(1, 3, 5, 10)
        views = batched(View.crop(0.1, 0.1, 0.7, 0.8))
        stored = token_targets(scores.half(), classes.to(class_type), views, (3, 3), 10)

        assert stored.tokens.excess.dtype == torch.float32
        expected = token_targets(scores.half().float(), classes, views, (3, 3), 10)
        torch.testing.assert_close(stored.dense(), expected.dense())

    def test_autocast_does_not_reach_the_targets(self):
        maps, views = random_maps(1, 3, 5, 10), batched(View.crop(0.1, 0.1, 0.7, 0.8))
        with torch.autocast('cpu', torch.bfloat16):
            mixed = token_targets(*maps, views, (3, 3), 10, map_view=views).dense()

        torch.testing.assert_close(mixed, token_targets(*maps, views, (3, 3), 10, map_view=views).dense())

    def test_very_large_scores_do_not_overflow(self):
        scores, classes = random_maps(1, 3, 5, 10)
        dense = token_targets((scores * 1e3).half(), classes, batched(View.identity()), (5, 5), 10).dense()

        assert all(bool(t.isfinite().all()) for t in dense)
        torch.testing.assert_close(dense[1].sum(-1), torch.ones(1, 25))

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
    @pytest.mark.parametrize('view_device', ['cpu', 'cuda'])
    def test_cuda_agrees_with_cpu(self, view_device):
        scores, classes = random_maps(4, 5, 18, 1000)
        view = View.crop(0.1, 0.2, 0.5, 0.7)
        views = batched(view, view @ View.flip(), View.identity(), view @ View.affine([[0.9, 0.3, 0], [-0.3, 0.9, 0]]))
        expected = token_targets(scores, classes, views, (14, 14), 1000, 0.1).dense()
        result = token_targets(scores.cuda(), classes.cuda(), views.to(view_device), (14, 14), 1000, 0.1).dense()

        torch.testing.assert_close([t.cpu() for t in result], list(expected), atol=1e-6, rtol=1e-5)


class TestBaselines:
    """Targets without a View: image labels and plain distillation."""

    def test_image_labels_without_a_grid_train_the_class_token_alone(self):
        targets = image_targets(torch.tensor([1, 0]), None, 3)

        assert targets.tokens is None
        torch.testing.assert_close(targets.dense()[0], torch.tensor([[0.0, 1, 0], [1, 0, 0]]))

    def test_distillation_is_the_softmax_of_the_maps_mean_score(self):
        scores, classes = random_maps(2, 3, 5, 10)
        targets = distillation_targets(scores.half(), classes, 10, smoothing=0.1)

        mean = reference.dense_maps(scores.half(), classes, 10).mean((2, 3))
        assert targets.tokens is None
        torch.testing.assert_close(targets.dense()[0], reference.soft_targets(mean, 0.1).float())

    def test_distillation_of_the_best_k_scores_at_a_temperature(self):
        scores, classes = random_maps(2, 3, 5, 10)
        scores = scores.sort(1, descending=True).values
        targets = distillation_targets(scores, classes, 10, smoothing=0.1, k=2, temperature=4.0)

        mean = reference.dense_maps(scores, classes, 10, k=2, temperature=4.0).mean((2, 3))
        torch.testing.assert_close(targets.dense()[0], reference.soft_targets(mean, 0.1).float())


class TestErrors:
    """What does not fit is said in one sentence."""

    @pytest.mark.parametrize(
        'make',
        [
            lambda maps: token_targets(*maps, batched(View.identity()), (2, 2), 8),
            lambda maps: distillation_targets(*maps, 8),
        ],
    )
    def test_a_class_that_the_model_does_not_have(self, make):
        scores, classes = random_maps(1, 2, 3, 8)
        classes[0, 0, 0, 0] = 8
        with pytest.raises(UserError, match='name class 8 but there are 8 classes'):
            make((scores, classes))

    def test_scores_and_classes_of_different_shape(self):
        scores, classes = random_maps(1, 2, 3, 8)
        with pytest.raises(ValueError, match=r'must both be \[B, k, S, S\]'):
            token_targets(scores, classes[:, :1], batched(View.identity()), (2, 2), 8)

    def test_views_of_another_batch(self):
        scores, classes = random_maps(1, 2, 3, 8)
        with pytest.raises(ValueError, match=r'map_view must be \[B, 2, 3\] with B = 1'):
            identity = batched(View.identity())
            token_targets(scores, classes, identity, (2, 2), 8, map_view=identity.repeat(2, 1, 1))

    def test_an_unknown_geometry(self):
        scores, classes = random_maps(1, 2, 3, 8)
        with pytest.raises(ValueError, match="'exact' or 'released', got 'true'"):
            token_targets(scores, classes, batched(View.identity()), (2, 2), 8, geometry='true')

    @pytest.mark.parametrize(
        'view',
        [
            View.crop(math.nan, 0, 1, 1),
            View.crop(0, 0, math.inf, 1),
            View.crop(0, 0, 1e9, 1),
            View.crop(0, 0, 1, -1e5),
        ],
    )
    def test_a_view_of_nothing_or_of_thousands_of_maps(self, view):
        with pytest.raises(UserError, match=r'not finite|spans \d+ cells'):
            token_targets(*random_maps(1, 3, 4, 9), batched(view), (14, 14), 9)

    def test_a_map_without_area(self):
        view, point = batched(View.identity()), batched(View.crop(0.5, 0.5, 0, 0))
        with pytest.raises(UserError, match='a map_view has no area'):
            token_targets(*random_maps(1, 3, 4, 9), view, (2, 2), 9, map_view=point)

    @pytest.mark.parametrize(
        ('name', 'value'),
        [
            *[('smoothing', value) for value in (-0.1, 1, 2, math.nan)],
            *[('temperature', value) for value in (0, -1, math.nan, math.inf)],
            *[('k', 0), ('k', -1), ('grid', (0, 3)), ('grid', (3, -1)), ('num_classes', 0)],
        ],
    )
    def test_arguments_out_of_range(self, name, value):
        arguments = {'grid': (2, 2), 'num_classes': 9} | {name: value}
        with pytest.raises(UserError, match=f'{name} is'):
            token_targets(*random_maps(1, 3, 4, 9), batched(View.identity()), **arguments)
        if name != 'grid':
            del arguments['grid']
            with pytest.raises(UserError, match=f'{name} is'):
                distillation_targets(*random_maps(1, 3, 4, 9), **arguments)

    @pytest.mark.parametrize('label', [-1, 9, 2**40])
    def test_an_image_label_that_the_model_does_not_have(self, label):
        with pytest.raises(UserError, match=f'An image has label {label} but there are 9 classes'):
            image_targets(torch.tensor([0, label, 3]), (2, 2), 9)
