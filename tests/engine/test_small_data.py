"""Batches of one, odd batches, fewer images than a batch, a single class."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.label_stores import write_store


def trained(runner) -> bool:
    before = runner.model.model.head.weight.clone()
    weight = runner.train().model.head.weight
    return bool(weight.isfinite().all()) and not torch.equal(weight, before)


@pytest.fixture
def small_set(scenes, tmp_path):
    """Options for a run on the first images of the first classes, with a label store of their own."""

    def make(num_classes: int, num_images: int) -> dict:
        source, root = scenes / 'imagenet/train', tmp_path / 'small/train'
        for folder in sorted(path for path in source.iterdir() if path.is_dir())[:num_classes]:
            for image in sorted(folder.iterdir())[:num_images]:
                (root / folder.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(image, root / folder.name)
        keys = [path.relative_to(root).as_posix() for path in root.rglob('*.jpg')]
        k = min(num_classes, 3)
        store = write_store(tmp_path / 'small/labels', keys, num_classes=num_classes, k=k, grid=8)
        options = {f'{split}_dataloader.dataset.root': str(root) for split in ('train', 'val', 'test')}
        return options | {
            'train_dataloader.dataset.label_store': str(store.path),
            'model.network.num_classes': num_classes,
        }

    return make


@pytest.mark.parametrize('mix_token', [False, True])
@pytest.mark.parametrize('batch_size', [1, 3])
def test_batches_of_one_and_of_odd_size_train(make_runner, batch_size, mix_token):
    options = {'train_dataloader.batch_size': batch_size, 'model.network.mix_token': mix_token}
    assert trained(make_runner(iterations=2, **options))


def test_erasing_takes_a_batch_of_one(make_runner):
    assert trained(
        make_runner(iterations=1, **{'train_dataloader.batch_size': 1, 'model.data_preprocessor.erasing': 1.0})
    )


def test_fewer_images_than_a_batch_fill_it_with_the_next_epochs(make_runner, small_set):
    runner = make_runner(iterations=2, **small_set(num_classes=3, num_images=1))
    assert trained(runner)
    assert len(runner.train_dataloader.dataset) == 3 < runner.train_dataloader.batch_size


def test_epochs_shorter_than_a_batch_count_as_one_iteration(make_runner, small_set):
    options = small_set(num_classes=3, num_images=1)
    options |= {'train_cfg.max_iters': 0, 'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1}
    runner = make_runner(**options)
    assert trained(runner)
    assert runner.iter == 2


def test_a_single_class_trains_and_is_always_right(make_runner, small_set):
    runner = make_runner(iterations=2, **small_set(num_classes=1, num_images=5))
    runner.train()
    assert runner.message_hub.get_scalar('val/top1').current() == 100
    assert Path(runner.work_dir, 'first_batch.png').exists()


def test_an_odd_last_batch_of_a_validation_is_counted(make_runner, small_set):
    options = small_set(num_classes=5, num_images=1) | {'val_dataloader.batch_size': 2}
    runner = make_runner(iterations=1, **options)
    runner.train()
    assert len(runner.val_dataloader.dataset) == 5
    assert runner.message_hub.get_scalar('val/top5').current() == 100
