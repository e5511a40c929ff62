"""Pictures of labels, tokens and segmentations: what they show and how they are saved."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from tokenlabel.pictures.labels import (
    class_palette,
    crop_targets_figure,
    label_map_figure,
    save_figure,
    segmentation_figure,
    token_labels_figure,
    token_predictions_figure,
)
from tokenlabel.transforms.view import View

NAMES = ('digit_0', 'digit_1', 'digit_2', 'digit_3')
PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
IMAGE = Image.new('RGB', (60, 40), (90, 90, 90))


def label_map(view=None):
    """A 2x2 map of two entries per cell: class 3 surely at the top left, class 1 weakly elsewhere."""
    classes = torch.tensor([[[3, 1], [1, 1]], [[1, 3], [3, 3]]])
    scores = torch.tensor([[[9.0, 0.1], [0.1, 0.1]], [[0.0, 0.0], [0.0, 0.0]]], dtype=torch.float16)
    return SimpleNamespace(scores=scores, classes=classes, view=view or View.identity())


def overlay(axis):
    """The coloured cells, float [rows, cols, 4], and where they lie."""
    return np.asarray(axis.images[-1].get_array()), axis.images[-1].get_extent()


def legend(figure):
    [box] = figure.legends
    return [text.get_text() for text in box.get_texts()]


def test_label_map_cells_bear_the_colour_of_the_best_class():
    figure = label_map_figure([IMAGE], [label_map()], NAMES, PALETTE)
    cells, extent = overlay(figure.axes[1])
    assert np.array_equal(cells[..., :3] * 255, np.array(PALETTE)[[[3, 1], [1, 1]]])
    assert tuple(extent) == (0, 60, 40, 0)


def test_label_map_opacity_is_the_share_of_the_best_class_among_all_classes():
    cells, _ = overlay(label_map_figure([IMAGE], [label_map()], NAMES, PALETTE).axes[1])
    dense = torch.tensor([0.0, 0.1, 0.0, 0.0], dtype=torch.float16).float()
    assert cells[1, 1, 3] == pytest.approx(0.9 * dense.softmax(0)[1].item())


def test_label_map_lies_over_the_part_of_the_image_that_was_annotated():
    centre = View.crop(0.25, 0.0, 0.5, 1.0)
    figure = label_map_figure([IMAGE], [label_map(centre)], NAMES, PALETTE)
    _, extent = overlay(figure.axes[1])
    assert tuple(extent) == (15, 45, 40, 0)
    assert figure.axes[1].get_xlim() == figure.axes[0].get_xlim()


def test_cells_cover_their_picture_to_the_edge():
    axis = label_map_figure([IMAGE], [label_map()], NAMES, PALETTE).axes[1]
    assert tuple(axis.images[0].get_extent()) == tuple(axis.images[1].get_extent())


def test_confident_cells_are_named_without_what_all_names_share():
    axis = label_map_figure([IMAGE], [label_map()], NAMES, PALETTE).axes[1]
    assert [text.get_text() for text in axis.texts] == ['3']


def test_token_predictions_show_class_and_confidence_of_every_token():
    logits = torch.zeros(2, 3, 4)
    logits[0, 2, 1] = 5
    cells, _ = overlay(token_predictions_figure([IMAGE], [logits], NAMES, PALETTE).axes[1])
    assert cells.shape == (2, 3, 4)
    assert tuple(cells[0, 2, :3] * 255) == PALETTE[1]
    assert cells[0, 2, 3] == pytest.approx(0.9 * logits.softmax(-1)[0, 2, 1].item())


def test_images_may_be_pil_arrays_or_tensors():
    array = np.asarray(IMAGE)
    pictures = [IMAGE, array, torch.tensor(array).permute(2, 0, 1)]
    figure = token_predictions_figure(pictures, [torch.zeros(2, 2, 4)] * 3, NAMES)
    for axis in figure.axes[:3]:
        assert np.array_equal(axis.images[0].get_array(), array)


def test_the_legend_names_the_classes_that_occur():
    assert legend(label_map_figure([IMAGE], [label_map()], NAMES)) == ['digit_1', 'digit_3']


def test_the_legend_stays_short_for_many_long_names():
    names = [f'class {label} of a very long catalogue' for label in range(1000)]
    logits = torch.nn.functional.one_hot(torch.arange(400).reshape(20, 20), 1000).float()
    figure = token_predictions_figure([IMAGE], [logits], names)
    assert len(legend(figure)) == 20
    assert max(map(len, legend(figure))) <= 20


def targets(rows=2, cols=3):
    """Class 2 with 0.7 everywhere, with 1 at the top left."""
    targets = torch.full((rows, cols, 4), 0.1)
    targets[..., 2] = 0.7
    targets[0, 0] = torch.tensor([0, 0, 1.0, 0])
    return targets


def test_a_crop_s_targets_lie_over_what_the_crop_shows():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    figure = crop_targets_figure([pixels], [label_map()], [(0.5, 0.25, 0.25, 0.5)], [targets()], NAMES, PALETTE)
    assert [text.get_text() for text in figure.texts[2:]] == ['image', 'annotator', 'crop', 'targets']
    assert np.array_equal(figure.axes[2].images[0].get_array(), pixels[10:30, 30:45])
    cells, extent = overlay(figure.axes[3])
    assert tuple(extent) == (0, 15, 20, 0)
    assert np.array_equal(cells[..., :3] * 255, np.broadcast_to(PALETTE[2], (2, 3, 3)))
    np.testing.assert_allclose(cells[..., 3], 0.9 * np.array([[1, 0.7, 0.7], [0.7, 0.7, 0.7]]), rtol=1e-6)


def test_the_crop_is_outlined_on_the_image_and_on_its_map():
    figure = crop_targets_figure([IMAGE] * 2, [label_map()] * 2, [(0.5, 0.25, 0.25, 0.5)] * 2, [targets()] * 2, NAMES)
    for axis in figure.axes[:4]:
        [box] = axis.patches
        assert box.get_bbox().bounds == (30, 10, 15, 20)
    assert not any(axis.patches for axis in figure.axes[4:])


def test_a_crop_of_less_than_a_pixel_shows_that_pixel():
    figure = crop_targets_figure([IMAGE], [label_map()], [(0.501, 0.501, 0.001, 0.001)], [targets()], NAMES)
    assert figure.axes[2].images[0].get_array().shape == (1, 1, 3)


def test_segmentation_rows_are_image_predictions_and_ground_truth():
    truth = np.array([[0, 1], [2, 255]])
    predictions = {'UperNet': [np.array([[0, 1], [1, 1]])], 'Semantic FPN': [torch.tensor([[3, 3], [2, 2]])]}
    figure = segmentation_figure([IMAGE], predictions, [truth], NAMES, PALETTE)
    assert [text.get_text() for text in figure.texts[2:]] == ['image', 'UperNet', 'Semantic FPN', 'ground truth']
    palette = np.array(PALETTE)
    assert np.array_equal(figure.axes[1].images[0].get_array(), palette[[[0, 1], [1, 1]]])
    assert np.array_equal(figure.axes[2].images[0].get_array(), palette[[[3, 3], [2, 2]]])
    assert np.array_equal(figure.axes[3].images[0].get_array()[:1], palette[[[0, 1]]])
    assert legend(figure) == [*NAMES, 'unlabelled']


def test_legend_colours_are_those_of_the_maps():
    figure = segmentation_figure([IMAGE], {}, [np.array([[1, 2]])], NAMES, PALETTE)
    assert [patch.get_facecolor()[:3] for patch in figure.legends[0].legend_handles] == [to_rgb('lime'), to_rgb('blue')]


def test_examples_stand_side_by_side_under_their_captions():
    figure = label_map_figure([IMAGE] * 3, [label_map()] * 3, NAMES, captions=['a', 'b', 'c'])
    assert [axis.get_title() for axis in figure.axes[:3]] == ['a', 'b', 'c']
    lefts = [axis.get_position().x0 for axis in figure.axes[:3]]
    assert lefts == sorted(set(lefts))


def test_images_and_maps_must_pair_up():
    with pytest.raises(ValueError, match='shorter'):
        label_map_figure([IMAGE, IMAGE], [label_map()], NAMES)


def test_the_default_palette_has_a_colour_of_its_own_for_each_of_many_classes():
    assert len(set(class_palette(150))) == 150


def test_a_saved_figure_is_a_picture_in_a_folder_made_for_it(tmp_path):
    path = save_figure(label_map_figure([IMAGE], [label_map()], NAMES), tmp_path / 'new/labels.png', dpi=50)
    with Image.open(path) as picture:
        assert picture.format == 'PNG'
    assert [entry.name for entry in path.parent.iterdir()] == ['labels.png']


def test_a_failed_save_keeps_the_older_picture_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'labels.png'
    path.write_bytes(b'older')
    figure = label_map_figure([IMAGE], [label_map()], NAMES)

    def fail(target, **_):
        target.write(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(figure, 'savefig', fail)
    with pytest.raises(OSError, match='disk full'):
        save_figure(figure, path)
    assert path.read_bytes() == b'older'
    assert [entry.name for entry in tmp_path.iterdir()] == ['labels.png']


def test_token_labels_are_drawn_with_their_own_confidence():
    cells, _ = overlay(token_labels_figure([IMAGE], [targets()], NAMES, PALETTE).axes[1])
    assert cells.shape == (2, 3, 4)
    assert tuple(cells[0, 0, :3] * 255) == PALETTE[2]
    assert cells[0, 0, 3] == pytest.approx(0.9) and cells[1, 1, 3] == pytest.approx(0.9 * 0.7)


def test_one_label_for_the_whole_image_is_one_cell():
    cells, _ = overlay(token_labels_figure([IMAGE], [targets(1, 1)], NAMES, PALETTE).axes[1])
    assert cells.shape == (1, 1, 4)
