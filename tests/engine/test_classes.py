"""Own data: what is trained and what is refused where images, annotator and network speak of different classes."""

import logging
import shutil
from pathlib import Path

import pytest
import torch

from tests.label_stores import write_store
from tokenlabel.data.digit_scenes import CLASSES
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError

NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
# the classes of the scenes among others, in another order
MORE = ('sky', *reversed(CLASSES), 'grass')


def image_keys(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.rglob('*.jpg')]


def store_for(root: Path, path: Path, names, count: int | None = None, skipped=()) -> str:
    names_or_none = None if names is None else list(names)
    count = count or len(names)
    return str(write_store(path, image_keys(root), count, k=3, grid=8, class_names=names_or_none, skipped=skipped).path)


@pytest.fixture
def flat(scenes, tmp_path) -> Path:
    """The scenes to train on, without class folders."""
    folder = tmp_path / 'flat'
    folder.mkdir()
    for path in (scenes / 'imagenet/train').rglob('*.jpg'):
        shutil.copy(path, folder / f'{path.parent.name}_{path.name}')
    return folder


def train_options(root, store, num_classes: int, **more) -> dict:
    return {
        'train_dataloader.dataset.root': str(root),
        'train_dataloader.dataset.label_store': store,
        'model.network.num_classes': num_classes,
        **more,
    }


def network(runner: Runner) -> torch.nn.Module:
    return runner.model.model


class TestTrains:
    def test_a_flat_folder_towards_the_annotator_s_classes(self, make_runner, flat, tmp_path):
        store = store_for(flat, tmp_path / 'labels', None, count=15)
        runner = make_runner(**train_options(flat, store, 15, **NO_VALIDATION))
        before = network(runner).aux_head.weight.clone()
        runner.train()
        assert network(runner).aux_head.weight.shape[0] == 15
        assert not torch.equal(network(runner).aux_head.weight, before)

    def test_a_flat_folder_with_a_class_map_towards_its_classes(self, make_runner, flat, tmp_path):
        store = store_for(flat, tmp_path / 'labels', MORE)
        lines = [f'{name}\t{number}' for number, name in enumerate(CLASSES)]
        (tmp_path / 'map.txt').write_text('\n'.join(lines))
        options = {'train_dataloader.dataset.class_map': str(tmp_path / 'map.txt')}
        runner = make_runner(**train_options(flat, store, 10, **options))
        runner.train()
        assert runner.train_loop.dataloader.dataset.num_classes == 10
        assert 'train/loss_tokens' in runner.message_hub.log_scalars and 'val/top1' in runner.message_hub.log_scalars

    def test_folders_of_some_of_the_annotator_s_classes_validate_by_name(self, make_runner, scenes, tmp_path):
        """The network's classes 10 to 1 are the folders 0 to 9."""
        root = scenes / 'imagenet/train'
        runner = make_runner(**train_options(root, store_for(root, tmp_path / 'labels', MORE), len(MORE)))
        runner.train()
        validated = runner.val_loop.dataloader.dataset
        assert validated.class_names == list(MORE)
        labels = {validated.key(index).split('/')[0]: validated[index]['label'] for index in range(len(validated))}
        assert labels == {name: MORE.index(name) for name in CLASSES}

    def test_an_evaluation_numbers_labels_as_the_checkpoint_says(self, make_runner, scenes, tmp_path):
        root = scenes / 'imagenet/train'
        options = train_options(root, store_for(root, tmp_path / 'labels', MORE), len(MORE))
        trained = make_runner(**options)
        trained.train()
        saved = f'{trained.work_dir}/iter_3.pth'
        runner = make_runner(work_dir=f'{trained.work_dir}_test', load_from=saved, **options)
        runner.test()
        assert runner.test_loop.dataloader.dataset.class_names == list(MORE)

    def test_images_that_were_skipped_are_left_out_and_counted(self, make_runner, scenes, tmp_path, caplog):
        root = scenes / 'imagenet/train'
        store = store_for(root, tmp_path / 'labels', CLASSES, skipped=sorted(image_keys(root))[:3])
        runner = make_runner(**train_options(root, store, 10))
        runner.logger.setLevel(logging.WARNING)
        runner.logger.addHandler(caplog.handler)
        runner.train()
        assert len(runner.train_loop.dataloader.dataset) == 37
        said = [record.getMessage() for record in caplog.records if 'skipped' in record.getMessage()]
        assert said == [f'3 images that the annotator skipped are left out of {root}.']


class TestRefuses:
    def test_a_network_of_other_classes_than_its_targets(self, make_runner, flat, tmp_path):
        store = store_for(flat, tmp_path / 'labels', None, count=15)
        with pytest.raises(
            UserError,
            match=r'has 15 classes but the network has 10: set .*num_classes=15.*class_map',
        ):
            make_runner(**train_options(flat, store, 10)).train()

    def test_a_network_of_other_classes_than_the_class_map(self, make_runner, scenes, tmp_path):
        root = scenes / 'imagenet/train'
        (tmp_path / 'map.txt').write_text('sky digit_0\ngrass digit_1')
        options = {'train_dataloader.dataset.class_map': str(tmp_path / 'map.txt')}
        with pytest.raises(UserError, match=r'map\.txt maps to 10 classes but the network has 12'):
            make_runner(**train_options(root, store_for(root, tmp_path / 'labels', MORE), 12, **options)).train()

    def test_validation_images_of_other_classes_before_the_first_step(self, make_runner, flat, tmp_path):
        store = store_for(flat, tmp_path / 'labels', None, count=15)
        runner = make_runner(**train_options(flat, store, 15))
        before = network(runner).head.weight.clone()
        with pytest.raises(
            UserError,
            match=r'Top-1 cannot be measured on .*val, as its 10 classes are not among the 15 of .*val_cfg=None',
        ):
            runner.train()
        assert torch.equal(network(runner).head.weight, before)

    def test_validation_images_without_labels(self, make_runner, flat):
        options = {'val_dataloader.dataset.root': str(flat)}
        with pytest.raises(
            UserError, match=r'Top-1 cannot be measured on .*flat, as 40 of its 40 images have no class'
        ):
            make_runner(**options).train()

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            ({'model.targets': {'type': 'ImageLabels'}}, 'Targets of type ImageLabels'),
            ({'model.loss.ground_truth': True}, 'A loss with ground_truth=True'),
        ],
    )
    def test_image_labels_from_a_flat_folder(self, make_runner, flat, tmp_path, options, message):
        store = store_for(flat, tmp_path / 'labels', CLASSES)
        with pytest.raises(UserError, match=rf'{message} cannot be made from .*flat, as 40 of its 40 images'):
            make_runner(**train_options(flat, store, 10, **options)).train()

    def test_more_scores_than_the_store_keeps(self, make_runner):
        with pytest.raises(UserError, match=r'need 4 scores per location, but label store .* keeps 3'):
            make_runner(**{'model.targets.k': 4}).train()

    @pytest.mark.parametrize(('name', 'value'), [('k', 0), ('temperature', 0.0)])
    def test_scores_or_a_temperature_out_of_range(self, make_runner, name, value):
        with pytest.raises(UserError, match=rf'TokenLabels\.{name} is {value}: give a'):
            make_runner(**{f'model.targets.{name}': value})
