"""The picture of the first batch."""

from pathlib import Path

import pytest
import torch
from PIL import Image


def picture_of(runner) -> Path:
    return Path(runner.work_dir, 'first_batch.png')


@pytest.mark.parametrize('targets', ['TokenLabels', 'ImageLabels'])
def test_training_draws_its_first_batch(make_runner, targets):
    runner = make_runner(iterations=1, **{'model.targets': {'type': targets}})
    runner.train()
    with Image.open(picture_of(runner)) as picture:
        assert picture.width > picture.height > 100


def test_a_resumed_run_leaves_the_picture_alone(make_runner):
    stopped = make_runner(iterations=1)
    stopped.train()
    picture_of(stopped).unlink()
    make_runner(iterations=2, resume=True).train()
    assert not picture_of(stopped).exists()


def test_it_leaves_the_random_numbers_of_the_training_alone(make_runner, tmp_path):
    weights = []
    for hooks in ([], [{'type': 'FirstBatchPicture'}]):
        options = {
            'custom_hooks': hooks,
            'model.data_preprocessor.erasing': 1.0,
            'work_dir': str(tmp_path / str(len(hooks))),
        }
        weights.append(make_runner(iterations=2, **options).train().state_dict())
    torch.testing.assert_close(*weights, rtol=0, atol=0)
