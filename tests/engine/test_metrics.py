"""Top-k accuracy."""

import pytest
import torch

from tokenlabel.engine.metrics import ReassessedTopK, TopK
from tokenlabel.errors import UserError


def evaluate(scores: torch.Tensor, labels: torch.Tensor, topk=(1, 2), size=None) -> dict:
    metric = TopK(topk)
    for batch_scores, batch_labels in zip(scores.split(2), labels.split(2), strict=True):
        metric.process({}, [{'scores': batch_scores, 'labels': batch_labels}])
    return metric.evaluate(size or len(labels))


def test_a_label_counts_when_it_is_among_the_k_highest_scores():
    scores = torch.tensor([[3.0, 2, 1], [3, 2, 1], [1, 2, 3], [1, 3, 2]])
    assert evaluate(scores, torch.tensor([0, 1, 0, 1])) == {'top1': 50.0, 'top2': 75.0}


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_scores_that_are_not_finite_are_no_accuracy(value):
    scores = torch.tensor([[3.0, 2, 1], [3, 2, value], [1, 2, 3]])
    with pytest.raises(UserError, match='The scores of 1 of 3 images are NaN or infinite'):
        evaluate(scores, torch.tensor([0, 1, 0]))


def test_with_fewer_classes_than_k_every_image_counts():
    assert evaluate(torch.rand(3, 2), torch.tensor([0, 1, 1]), topk=(1, 5))['top5'] == 100.0


def test_padding_beyond_the_dataset_is_not_counted():
    scores, labels = torch.eye(3), torch.tensor([0, 1, 0])
    assert evaluate(scores, labels, topk=(1,), size=2) == {'top1': 100.0}


def test_real_accuracy_takes_any_right_class_and_leaves_images_without_one_out():
    metric = ReassessedTopK([[0, 2], [], [1], [1]])
    for index in ([3, 1], [0, 2]):
        scores = torch.nn.functional.one_hot(torch.tensor([2, 0, 1, 0]), 3)[index].float()
        metric.process({'index': torch.tensor(index)}, [{'scores': scores}])
    # the scores' best classes are 2, 0, 1, 0: images 0 and 2 are right, image 1 does not count, image 3 is wrong
    assert metric.evaluate(4) == {'real/top1': pytest.approx(200 / 3)}
