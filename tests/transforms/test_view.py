"""Views: affine maps from the model input to the source image."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenlabel.transforms.view import View, compose, invert

coefficient = st.floats(-2, 2, width=32)
views = st.builds(lambda values: View(np.reshape(values, (2, 3))), st.lists(coefficient, min_size=6, max_size=6))
invertible = views.filter(lambda view: abs(np.linalg.det(view.matrix[:, :2])) > 0.1)
points = st.lists(st.tuples(coefficient, coefficient), min_size=1, max_size=4).map(np.array)


def test_a_crop_maps_the_corners_of_the_input_to_those_of_the_rectangle():
    corners = View.crop(left=0.5, top=0.25, width=0.3, height=0.5).apply([(0, 0), (1, 0), (0, 1), (1, 1)])

    np.testing.assert_allclose(corners, [(0.5, 0.25), (0.8, 0.25), (0.5, 0.75), (0.8, 0.75)])


def test_a_flip_exchanges_left_and_right():
    np.testing.assert_allclose(View.flip().apply([(0, 0), (0.25, 1)]), [(1, 0), (0.75, 1)])


def test_a_pixel_map_becomes_one_of_fractions():
    """10 pixels of a 200x100 image are 1/20 across and 1/10 down; a shear mixes the two units."""
    view = View.pixel_affine([[1, 0.5, 10], [0, 1, 10]], (200, 100))

    np.testing.assert_allclose(view.apply((0, 0)), (0.05, 0.1))
    np.testing.assert_allclose(view.apply((0, 1)), (0.05 + 0.25, 1.1))


@given(views, views, points)
def test_the_right_hand_view_is_applied_to_points_first(outer, inner, points):
    np.testing.assert_allclose((outer @ inner).apply(points), outer.apply(inner.apply(points)), atol=1e-9)


@given(views)
def test_the_identity_changes_nothing(view):
    np.testing.assert_array_equal((view @ View.identity()).matrix, view.matrix)
    np.testing.assert_array_equal((View.identity() @ view).matrix, view.matrix)


@given(invertible, points)
def test_the_inverse_leads_back(view, points):
    np.testing.assert_allclose(view.inverse().apply(view.apply(points)), points, atol=1e-9)


@given(st.lists(invertible, min_size=1, max_size=3))
def test_batched_functions_agree_with_the_class(views):
    batch = torch.stack([view.tensor() for view in views])
    reverse = batch.flip(0)

    composed = torch.stack([(a @ b).tensor() for a, b in zip(views, reversed(views), strict=True)])
    torch.testing.assert_close(compose(batch, reverse), composed, atol=1e-5, rtol=1e-5)
    inverses = torch.stack([view.inverse().tensor() for view in views])
    torch.testing.assert_close(invert(batch), inverses, atol=1e-4, rtol=1e-4)


def test_batched_composition_keeps_its_precision_under_autocast():
    batch = torch.rand(2, 2, 3)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = compose(batch, invert(batch))

    torch.testing.assert_close(mixed, compose(batch, invert(batch)))


def test_a_view_cannot_be_changed():
    view = View.identity()
    with pytest.raises(ValueError, match='read-only'):
        view.matrix[0, 0] = 2
    with pytest.raises(AttributeError):
        view.matrix = np.zeros((2, 3))


def test_a_view_survives_pickling_as_loader_workers_do_it():
    view = View.crop(0.1, 0.2, 0.3, 0.4)

    np.testing.assert_array_equal(pickle.loads(pickle.dumps(view)).matrix, view.matrix)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r'2x3 matrix, got the shape \(3, 3\)'):
        View.affine(np.eye(3))
