"""The picture of the first batch."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training_processes import PICTURED
from tokenlabel.engine.hooks import first_batch
from tokenlabel.engine.preprocessor import ImagePreprocessor


def picture_of(runner) -> Path:
    return Path(runner.work_dir, 'first_batch.png')


@pytest.mark.parametrize('targets', ['TokenLabels', 'ImageLabels'])
def test_training_draws_its_first_batch(make_runner, targets):
    runner = make_runner(iterations=1, **{'model.targets': {'type': targets}, PICTURED: 8})
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
            'model.data_preprocessor.cutmix': 1.0,
            'work_dir': str(tmp_path / str(len(hooks))),
        }
        weights.append(make_runner(iterations=2, **options).train().state_dict())
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_mixed_images_are_drawn_with_the_labels_of_their_own_mixture(make_runner, monkeypatch):
    batches, drawn = [], {}
    prepare, draw = ImagePreprocessor.forward, first_batch.token_labels_figure

    def recorded(self, data, training=False):
        output = prepare(self, data, training)
        batches.append(output['batch'])
        return output

    def figure(images, grids, *args, **kwargs):
        drawn.update(images=len(images), grids=torch.stack(grids))
        return draw(images, grids, *args, **kwargs)

    monkeypatch.setattr(ImagePreprocessor, 'forward', recorded)
    monkeypatch.setattr(first_batch, 'token_labels_figure', figure)
    hook = {'type': 'FirstBatchPicture', 'num_images': 2}
    runner = make_runner(iterations=1, **{'custom_hooks': [hook], 'model.data_preprocessor.mixup': 0.8})
    runner.train()
    batch = next(batch for batch in batches if len(batch['image']) == 8)
    tokens = runner.model.targets_of(batch, runner.model.grid).dense()[1]
    assert 'mix' in batch and drawn['images'] == 2
    torch.testing.assert_close(drawn['grids'].flatten(1, 2), tokens[:2])
