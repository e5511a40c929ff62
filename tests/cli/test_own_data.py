"""Your own images and classes through the commands: an annotator, its labels, a network trained on them."""

import shutil
from pathlib import Path

import pytest

from tokenlabel.labels.store import LabelStore

RESNET = ('channels=[16,24,32,40]', 'stem_width=8')
SMALL_RUN = ('train_cfg.max_epochs=1', 'train_dataloader.batch_size=8', 'train_dataloader.num_workers=0')
SMALL_RUN += ('train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0')


@pytest.fixture(scope='module')
def flat(scenes) -> Path:
    """The scenes to train on, in one folder."""
    folder = scenes.parent / 'flat'
    folder.mkdir()
    for path in (scenes / 'imagenet/train').rglob('*.jpg'):
        shutil.copy(path, folder / f'{path.parent.name}_{path.name}')
    return folder


@pytest.fixture
def annotator(scenes, run_here, tmp_path) -> Path:
    """A checkpoint of `configs/annotator.py`, of a small network."""
    network = ['model_name=resnet10t', 'num_classes=10', 'pretrained=False', f'channels={RESNET[0].split("=")[1]}']
    network += [RESNET[1], 'drop_path_rate=0.0']
    options = [f'model.network.{entry}' for entry in network] + list(SMALL_RUN)
    for loader, split in (('train', 'train'), ('val', 'val')):
        options += [f'{loader}_dataloader.dataset.root={scenes}/imagenet/{split}']
        options += [f'{loader}_dataloader.dataset.transform.size=64']
    done = run_here('train', 'configs/annotator.py', '--work-dir', tmp_path / 'annotator', '--cfg-options', *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return next((tmp_path / 'annotator').glob('best_top1_iter_*.pth'))


def test_an_annotator_of_one_s_own_classes_labels_a_flat_folder_for_training(
    annotator, flat, scenes, run_here, tmp_path
):
    labels = tmp_path / 'labels'
    done = run_here(
        *['annotate', flat, labels, '--annotator', 'resnet10t', '--checkpoint', annotator],
        *['--model-kwargs', *RESNET, '--img-size', '64', '--workers', '0'],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert LabelStore(labels).num_classes == 10
    options = [f'train_dataloader.dataset.root={flat}', f'train_dataloader.dataset.label_store={labels}']
    options += ['train_dataloader.batch_size=8', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2']
    without = ['val_cfg=None', 'val_dataloader=None', 'val_evaluator=None']
    done = run_here(
        *['train', 'configs/demo/pretrain.py', '--work-dir', tmp_path / 'run'],
        *['--cfg-options', *options, *without],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / 'run/iter_2.pth').is_file()


def test_validation_images_of_other_classes_are_one_sentence(flat, scenes, label_store, run_here, tmp_path):
    options = [f'train_dataloader.dataset.root={scenes}/imagenet/train', 'train_dataloader.batch_size=8']
    options += [f'train_dataloader.dataset.label_store={label_store}', f'val_dataloader.dataset.root={flat}']
    done = run_here(
        *['train', 'configs/demo/pretrain.py', '--work-dir', tmp_path],
        *['--cfg-options', *options, 'train_cfg.max_iters=2'],
    )
    assert done.returncode == 2
    assert 'error: Top-1 cannot be measured on' in done.stderr and 'Traceback' not in done.stderr
