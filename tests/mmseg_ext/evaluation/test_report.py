"""What a report says about an evaluation, and the files it is made of."""

import csv
import json
from math import isnan
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmseg_ext.evaluation.confusion_picture import confusion_figure
from mmseg_ext.evaluation.per_class import class_scores, normalised, weakest_first
from mmseg_ext.evaluation.report import measure_confusions, write_report
from mmseg_ext.evaluation.worst_images import Example, examples_figure, worst_first
from tokenlabel.errors import UserError

NAMES = ('sky', 'tree', 'ghost', 'unicorn')
# a fourth of the trees is taken for sky and an eighth for ghosts, which are nowhere; of unicorns nothing is heard
CONFUSION = torch.tensor([[6, 0, 0, 0], [2, 5, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
FILES = {
    'classes.csv',
    'classes.md',
    'confusion.csv',
    'confusion.png',
    'images.csv',
    'metrics.json',
    'worst_images.png',
}


def evaluated(confusion=CONFUSION, names=NAMES, images=()) -> SimpleNamespace:
    return SimpleNamespace(confusion=confusion, images=list(images), dataset_meta={'classes': names})


def records(*scores: float) -> list[dict]:
    return [dict(img_path=f'{i}.jpg', IoU=score, pixels=4, correct=1) for i, score in enumerate(scores)]


def example(score=12.5, size=(6, 9)) -> Example:
    truth = np.zeros(size, np.uint8)
    truth[0, 0] = 255
    return Example('photo.jpg', score, np.zeros((*size, 3), np.uint8), truth, np.ones(size, np.int64))


def texts(figure) -> list[str]:
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return legends + [text.get_text() for text in figure.texts]


def rows_of(path) -> list[list[str]]:
    with open(path, newline='') as file:
        return list(csv.reader(file))


def test_scores_of_a_class_are_shares_of_rows_and_columns_in_percent():
    sky, tree, *_ = class_scores(CONFUSION, NAMES)
    assert (sky.IoU, sky.accuracy, sky.precision) == pytest.approx((75, 100, 75))
    assert (tree.IoU, tree.accuracy, tree.precision) == pytest.approx((62.5, 62.5, 100))
    assert (tree.pixels, tree.predicted, tree.share) == (8, 5, pytest.approx(100 * 8 / 14))


def test_scores_are_those_of_mmsegmentation():
    from mmseg.evaluation import IoUMetric

    torch.manual_seed(0)
    counts = torch.randint(0, 1000, (5, 5))
    found, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    areas = [x.float() for x in (found, labelled + predicted - found, predicted, labelled)]
    theirs = IoUMetric.total_area_to_metrics(*areas, ['mIoU', 'mFscore'])
    scores = class_scores(counts, 'abcde')
    assert [x.IoU for x in scores] == pytest.approx(100 * theirs['IoU'], rel=1e-6)
    assert [x.accuracy for x in scores] == pytest.approx(100 * theirs['Acc'], rel=1e-6)
    assert [x.precision for x in scores] == pytest.approx(100 * theirs['Precision'], rel=1e-6)


def test_a_class_is_confused_with_what_it_is_most_often_taken_for():
    sky, tree, ghost, _ = class_scores(CONFUSION, NAMES)
    assert (tree.confused_with, tree.confused_share) == ('sky', 25)
    assert sky.confused_with is None and ghost.confused_with is None


def test_a_class_that_never_occurs_has_no_score_unless_it_was_predicted():
    _, _, ghost, unicorn = class_scores(CONFUSION, NAMES)
    assert not ghost.is_in_data and not unicorn.is_in_data
    assert ghost.IoU == 0 and isnan(ghost.accuracy)
    assert isnan(unicorn.IoU) and isnan(unicorn.precision)


def test_the_weakest_class_comes_first_and_absent_ones_last():
    assert [one.name for one in weakest_first(class_scores(CONFUSION, NAMES))] == ['tree', 'sky', 'ghost', 'unicorn']


def test_rows_of_the_picture_are_shares_of_a_class_and_grey_without_pixels():
    shares = normalised(CONFUSION)
    assert shares[1].tolist() == [0.25, 0.625, 0.125, 0]
    image = np.ma.getdata(confusion_figure(CONFUSION, NAMES).axes[0].images[0].get_array())
    assert np.allclose(image, 100 * shares, equal_nan=True)


@pytest.mark.parametrize('num_classes', [1, 2, 11, 31, 150, 400])
def test_the_picture_is_readable_for_any_number_of_classes(num_classes):
    """Names do not run into one another, up to 150 classes each has its name, and the picture stays printable."""
    names = [f'class number {i}' for i in range(num_classes)]
    figure = confusion_figure(torch.eye(num_classes, dtype=torch.int64), names)
    axis = figure.axes[0]
    labels = axis.get_yticklabels()
    assert len(labels) == num_classes or num_classes > 150
    points = 72 * figure.get_size_inches()[1] * axis.get_position().height / num_classes
    spacing = points * (labels[1].get_position()[1] - labels[0].get_position()[1] if num_classes > 1 else 1)
    assert 4 <= labels[0].get_fontsize() < spacing
    assert max(figure.get_size_inches()) < 30
    assert sum(bool(text.get_text()) for text in axis.texts) == (num_classes if num_classes <= 30 else 0)


def test_images_are_ranked_by_score_and_those_without_labels_left_out():
    ranked = worst_first(records(0.5, float('nan'), 0.25, 0.5))
    assert [image['img_path'] for image in ranked] == ['2.jpg', '0.jpg', '3.jpg']


def test_an_image_stands_beside_ground_truth_and_prediction_and_the_legend_has_the_area_in_both():
    figure = examples_figure([example(), example(3.0)], NAMES)
    assert len(figure.axes) == 6
    assert 'photo.jpg   IoU 12.5 %' in texts(figure) and 'photo.jpg   IoU 3.0 %' in texts(figure)
    assert texts(figure)[:2] == ['sky  100, 0', 'tree  0, 100']
    assert texts(figure)[2] == 'unlabelled'
    truth = np.asarray(figure.axes[1].images[0].get_array())
    assert tuple(truth[0, 0]) == (236, 239, 243)  # unlabelled
    assert not np.array_equal(truth[1, 1], np.asarray(figure.axes[2].images[0].get_array())[1, 1])


@pytest.mark.parametrize('size', [(1, 1), (1, 60), (60, 1)])
def test_images_of_any_shape_are_drawn(size):
    assert len(examples_figure([example(size=size)], NAMES).axes) == 3


def test_a_report_is_complete(tmp_path):
    metric = evaluated(images=records(0.5, 0.25, float('nan')))
    scores = {'mIoU': 45.8, 'mAcc': float('nan')}
    write_report(tmp_path / 'report', metric, scores, [example()], {'config': 'mine.py'})
    assert {path.name for path in (tmp_path / 'report').iterdir()} == FILES

    summary = json.loads((tmp_path / 'report/metrics.json').read_text())
    assert summary['metrics'] == {'mIoU': 45.8, 'mAcc': None}
    assert summary['config'] == 'mine.py' and summary['images'] == 3
    assert [one['name'] for one in summary['classes']] == list(NAMES)
    assert summary['classes'][3]['IoU'] is None
    assert summary['worst_images'] == [{'image': 'photo.jpg', 'IoU': 12.5}]
    assert summary['versions']['torch'] == torch.__version__

    assert rows_of(tmp_path / 'report/confusion.csv')[2] == ['tree', '2', '5', '1', '0']
    assert rows_of(tmp_path / 'report/images.csv')[1:] == [['1.jpg', '25.0', '4', '1'], ['0.jpg', '50.0', '4', '1']]
    names = [row[0] for row in rows_of(tmp_path / 'report/classes.csv')]
    assert names == ['name', 'tree', 'sky', 'ghost', 'unicorn']
    for picture in ('confusion.png', 'worst_images.png'):
        Image.open(tmp_path / 'report' / picture).verify()


def test_the_table_can_be_read_as_text(tmp_path):
    write_report(tmp_path, evaluated(), {'mIoU': 45.8})
    assert (tmp_path / 'classes.md').read_text().splitlines() == [
        'mIoU 45.80 (percent)',
        '',
        '| class   |   IoU | accuracy | precision | pixels, % | most often taken for                    |',
        '|---------|------:|---------:|----------:|----------:|-----------------------------------------|',
        '| tree    | 62.50 |    62.50 |    100.00 |     57.14 | sky (25.0 %)                            |',
        '| sky     | 75.00 |   100.00 |     75.00 |     42.86 |                                         |',
        '| ghost   |  0.00 |        - |      0.00 |      0.00 | not in the data, pixels taken for it: 1 |',
        '| unicorn |     - |        - |         - |      0.00 | not in the data                         |',
    ]


def test_a_report_that_is_not_finished_has_no_metrics(tmp_path, monkeypatch):
    write_report(tmp_path, evaluated(), {'mIoU': 1.0}, [example()])

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmseg_ext.evaluation.report.confusion_figure', stop)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, evaluated(), {'mIoU': 2.0})
    assert {path.name for path in tmp_path.iterdir()} == FILES - {'metrics.json'}
    monkeypatch.undo()
    write_report(tmp_path, evaluated(), {'mIoU': 2.0})
    assert {path.name for path in tmp_path.iterdir()} == FILES - {'worst_images.png'}


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('kind', ['IoUMetric', 'StreamingIoU'])
def test_a_config_is_made_to_count_confusions_with_the_arguments_it_has(kind, wrapped):
    metric = dict(type=kind, iou_metrics=['mDice'], ignore_index=7)
    config = Config(dict(test_evaluator=[dict(type='CityscapesMetric'), metric] if wrapped else metric))
    measure_confusions(config, 'mine.py')
    changed = config.test_evaluator[1] if wrapped else config.test_evaluator
    assert changed == dict(type='StreamingIoU', iou_metrics=['mDice'], ignore_index=7, per_image=True)


@pytest.mark.parametrize(
    ('evaluator', 'words'),
    [
        (dict(type='CityscapesMetric'), 'without a confusion matrix'),
        ([], 'without a confusion matrix'),
        (dict(type='IoUMetric', format_only=True), 'format_only'),
    ],
)
def test_an_evaluator_without_confusions_is_refused(evaluator, words):
    with pytest.raises(UserError, match=words):
        measure_confusions(Config(dict(test_evaluator=evaluator)), 'mine.py')
