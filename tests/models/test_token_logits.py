"""The scoring rule and the output of a training pass."""

import torch

from tokenlabel.models import TokenLogits, class_scores


def test_score_is_class_logit_plus_weighted_best_token():
    cls = torch.tensor([[1.0, 2.0]])
    tokens = torch.tensor([[[0.0, 4.0], [6.0, -2.0], [1.0, 1.0]]])
    assert class_scores(cls, tokens, 0.5).tolist() == [[4.0, 4.0]]


def test_weight_zero_scores_the_class_token_alone():
    cls = torch.randn(2, 3)
    assert class_scores(cls, None, 0) is cls


def test_logits_without_tokens_have_no_grid_and_no_box():
    assert TokenLogits(torch.zeros(2, 3))[1:] == (None, None, None)
