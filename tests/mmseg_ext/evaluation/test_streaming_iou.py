"""The streaming confusion matrix gives the numbers of MMSegmentation's IoUMetric, whoever saw which image."""

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from PIL import Image
from torch import distributed

from mmseg_ext import evaluation
from mmseg_ext.evaluation import StreamingIoU
from tests.reference.iou import confusion_matrix
from tests.two_processes import in_two_processes
from tokenlabel.errors import UserError

NAMES = ('sky', 'road', 'car', 'tree', 'cat')


def samples(num_images: int, seed: int = 0, classes: tuple[int, ...] = (0, 1, 2, 4, 255)) -> list[dict]:
    """Predictions and annotations at random; `classes` are the labels that occur."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for index in range(num_images):
        shape = (1, 7 + index % 3, 9)
        truth = torch.tensor(classes)[torch.randint(len(classes), shape, generator=generator)]
        wrong = torch.randint(3, shape, generator=generator)
        labels = torch.where(torch.rand(shape, generator=generator) < 0.6, truth.clamp(max=4), wrong)
        drawn.append(dict(pred_sem_seg=dict(data=labels), gt_sem_seg=dict(data=truth), img_path=f'images/{index}.jpg'))
    return drawn


def scored(metric: IoUMetric, drawn: list[dict], batch_size: int = 2) -> dict:
    metric.dataset_meta = dict(classes=NAMES)
    for begin in range(0, len(drawn), batch_size):
        metric.process({}, drawn[begin : begin + batch_size])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a mean of nothing
        return metric.evaluate(len(drawn))


@settings(max_examples=30)
@given(
    st.integers(1, 6),
    st.integers(0, 99),
    st.sets(st.sampled_from([0, 1, 2, 3, 4, 7, 200, 255]), min_size=1),
    st.lists(st.sampled_from(['mIoU', 'mDice', 'mFscore']), min_size=1, unique=True),
    st.sampled_from([None, 0, -1]),
    st.sampled_from([1, 2]),
    st.sampled_from([255, 4, 0]),
)
def test_numbers_are_those_of_iou_metric(num_images, seed, labels, metrics, nan_to_num, beta, ignore_index):
    drawn = samples(num_images, seed, tuple(labels))
    options = dict(iou_metrics=metrics, nan_to_num=nan_to_num, beta=beta, ignore_index=ignore_index, prefix='val')
    ours, theirs = scored(StreamingIoU(**options), drawn), scored(IoUMetric(**options), drawn)
    theirs = {f'val/{name.removeprefix("val/")}': value for name, value in theirs.items()}
    np.testing.assert_equal(ours, theirs)


def test_the_table_is_that_of_iou_metric(caplog):
    tables = []
    for kind in (StreamingIoU, IoUMetric):
        caplog.clear()
        with caplog.at_level(logging.INFO), watched(caplog):
            scored(kind(), samples(4))
        tables.append([record.getMessage() for record in caplog.records if '+--' in record.getMessage()])
    assert len(tables[0]) == 1
    assert tables[0] == tables[1]


def test_classes_without_annotation_are_named_in_one_line(caplog):
    with caplog.at_level(logging.INFO), watched(caplog):
        scored(StreamingIoU(), samples(4))
    lines = [record.getMessage() for record in caplog.records if 'not in the annotations' in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].endswith('tree.')


def test_the_matrix_counts_each_pixel_whose_label_is_a_class():
    metric, drawn = StreamingIoU(), samples(5, classes=(0, 1, 2, 4, 9, 255))
    scored(metric, drawn)
    truths, labels = ([one[key]['data'] for one in drawn] for key in ('gt_sem_seg', 'pred_sem_seg'))
    assert metric.confusion.tolist() == confusion_matrix(labels, truths, len(NAMES), 255)
    assert metric.confusion.dtype == torch.int64


def test_images_are_scored_one_by_one():
    metric, drawn = StreamingIoU(per_image=True), samples(5)
    scored(metric, drawn)
    assert [image['img_path'] for image in metric.images] == [one['img_path'] for one in drawn]
    for image, one in zip(metric.images, drawn, strict=True):
        truth, labels = one['gt_sem_seg']['data'], one['pred_sem_seg']['data']
        counted = truth != 255
        present = truth[counted].unique()
        ious = [
            ((labels == k) & (truth == k)).sum() / (((labels == k) & counted) | (truth == k)).sum() for k in present
        ]
        assert image['pixels'] == counted.sum()
        assert image['correct'] == (labels == truth)[counted].sum()
        assert image['IoU'] == pytest.approx(float(torch.stack(ious).mean()))


def test_logits_that_are_not_finite_are_no_score():
    drawn = samples(3)
    for index, sample in enumerate(drawn):
        sample['finite_logits'] = torch.tensor(index != 1)
    metric = StreamingIoU()
    with pytest.raises(UserError, match='The logits of 1 of 3 images are NaN or infinite'):
        scored(metric, drawn)


def test_every_evaluation_starts_anew():
    metric = StreamingIoU(per_image=True)
    first = scored(metric, samples(3))
    again = scored(metric, samples(3))
    assert first == again
    assert len(metric.images) == 3


def test_predictions_are_written_with_the_numbers_on_disk(tmp_path):
    drawn = [one | dict(reduce_zero_label=True) for one in samples(2)]
    assert scored(StreamingIoU(output_dir=str(tmp_path), format_only=True), drawn) == {}
    for index, one in enumerate(drawn):
        written = np.asarray(Image.open(tmp_path / f'{index}.png'))
        assert (written == one['pred_sem_seg']['data'][0].numpy() + 1).all()


@pytest.mark.parametrize('kind', [StreamingIoU, evaluation.IoUMetric])
def test_predictions_keep_the_path_of_their_image(tmp_path, kind):
    metric = kind(output_dir=str(tmp_path / 'out'), format_only=True)
    parts = [SimpleNamespace(data_prefix=dict(img_path=str(tmp_path / 'images')))]
    metric.name_images_of(SimpleNamespace(datasets=parts))
    paths = ['a/1.jpg', 'b/1.jpg', 'b/clip_2.0.jpg', 'b/caf\udce9.jpg', f'b/{"x" * 251}.jpg']
    drawn = [one | dict(img_path=str(tmp_path / 'images' / path)) for one, path in zip(samples(5), paths, strict=True)]
    scored(metric, drawn)
    written = {path.relative_to(tmp_path / 'out').as_posix() for path in (tmp_path / 'out').rglob('*.png')}
    assert written == {f'{path[:-4]}.png' for path in paths}


@pytest.mark.parametrize('kind', [StreamingIoU, evaluation.IoUMetric])
def test_predictions_of_one_name_are_refused(tmp_path, kind):
    drawn = [one | dict(img_path=f'images/{place}/1.jpg') for one, place in zip(samples(2), 'ab', strict=True)]
    with pytest.raises(UserError, match=r'images/a/1\.jpg and images/b/1\.jpg would both be written to .*1\.png'):
        scored(kind(output_dir=str(tmp_path), format_only=True), drawn)


def test_iou_metric_of_configs_writes_predictions_and_scores_as_that_of_mmsegmentation(tmp_path):
    ours = METRICS.build(dict(type='IoUMetric', output_dir=str(tmp_path)))
    assert type(ours) is evaluation.IoUMetric
    assert scored(ours, samples(3)) == scored(IoUMetric(), samples(3))
    assert len(list(tmp_path.glob('*.png'))) == 3


@pytest.fixture(scope='module')
def of_two_processes(tmp_path_factory) -> dict:
    """What two processes find, by (number of images, whether the sampler repeats some)."""
    folder = tmp_path_factory.mktemp('processes')
    in_two_processes(_score_shares, folder)
    return torch.load(folder / 'found.pt', weights_only=False)


@pytest.mark.parametrize('num_images', [1, 2, 5, 8])
@pytest.mark.parametrize('round_up', [True, False])
def test_two_processes_count_each_image_once(of_two_processes, num_images, round_up):
    alone = StreamingIoU(per_image=True)
    expected = scored(alone, samples(num_images))
    for metrics, confusion, images in of_two_processes[num_images, round_up]:
        np.testing.assert_equal(metrics, expected)
        assert torch.equal(confusion, alone.confusion)
        np.testing.assert_equal(images, alone.images)


def _score_shares(rank: int, folder: Path) -> None:
    MMLogger.get_instance('processes', log_level='ERROR')
    found = {}
    for num_images in (1, 2, 5, 8):
        drawn = samples(num_images)
        for round_up in (True, False):
            metric = StreamingIoU(per_image=True)
            metric.dataset_meta = dict(classes=NAMES)
            indices = list(DefaultSampler(drawn, shuffle=False, round_up=round_up))
            for begin in range(0, len(indices), 2):
                metric.process({}, [drawn[index] for index in indices[begin : begin + 2]])
            both = [None, None]
            distributed.all_gather_object(both, (metric.evaluate(num_images), metric.confusion, metric.images))
            found[num_images, round_up] = both
    if rank == 0:
        torch.save(found, folder / 'found.pt')


class watched:
    """Lets pytest see what MMEngine's logger says."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.logger, self.handler = MMLogger.get_current_instance(), caplog.handler

    def __enter__(self) -> None:
        self.logger.addHandler(self.handler)

    def __exit__(self, *_) -> None:
        self.logger.removeHandler(self.handler)
