"""The commands users type, run as they are: one and two processes, evaluation, and bad input."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo

import tokenlabel  # noqa: F401  registers lvvit_t
from tests.two_processes import free_port


def pretraining_options(scenes: Path, labels: Path | None) -> list[str]:
    options = [f'{split}_dataloader.dataset.root={scenes}/imagenet/val' for split in ('val', 'test')]
    options += [f'train_dataloader.dataset.root={scenes}/imagenet/train']
    options += [f'train_dataloader.dataset.label_store={labels}', 'train_dataloader.batch_size=8']
    return [*options, 'train_cfg.max_iters=2', 'train_cfg.val_interval=2']


def segmentation_options(scenes: Path) -> list[str]:
    roots = [f'{split}_dataloader.dataset.data_root={scenes}/ade' for split in ('train', 'val', 'test')]
    options = ['model.backbone.init_cfg=None', 'train_dataloader.batch_size=2', 'val_dataloader.batch_size=2']
    return [*roots, *options, 'test_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2']


def metrics_with(run_tool, processes: int, config: str, checkpoint: Path, options: list[str], *flags: str) -> dict:
    folder = checkpoint.parent / f'test{processes}'
    command = ['tools/dist_test.sh', config, checkpoint, str(processes), '--work-dir', folder, *flags]
    done = run_tool(*command, '--out', folder / 'metrics.json', '--cfg-options', *options, PORT=free_port())
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / 'metrics.json').read_text())


@pytest.mark.slow
def test_two_processes_pretrain_and_score_as_one_does(run_tool, scenes, label_store, tmp_path):
    config, options = 'configs/demo/pretrain.py', pretraining_options(scenes, label_store)
    command = ['tools/pretrain.sh', config, '2', '--work-dir', tmp_path]
    done = run_tool(*command, '--cfg-options', *options, PORT=free_port())
    assert done.returncode == 0, done.stdout + done.stderr
    checkpoint = tmp_path / 'iter_2.pth'
    one = metrics_with(run_tool, 1, config, checkpoint, options)
    assert one == metrics_with(run_tool, 2, config, checkpoint, options)
    assert set(one) == {'top1', 'top5'}


@pytest.mark.slow
@pytest.mark.parametrize('head', ['upernet', 'fpn'])
def test_two_processes_fine_tune_and_score_as_one_does(run_tool, scenes, tmp_path, head):
    config, options = f'configs/demo/{head}.py', segmentation_options(scenes)
    command = ['tools/dist_train.sh', config, '2', '--work-dir', tmp_path]
    done = run_tool(*command, '--cfg-options', *options, PORT=free_port())
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'SyncBatchNorm needs GPUs: using BatchNorm' in done.stdout + done.stderr
    checkpoint = tmp_path / 'iter_2.pth'
    one = metrics_with(run_tool, 1, config, checkpoint, options, '--report')
    assert one == metrics_with(run_tool, 2, config, checkpoint, options, '--report')
    assert {'mIoU', 'mAcc', 'aAcc'} <= set(one)
    for file in ('metrics.json', 'classes.md', 'confusion.csv', 'images.csv', 'worst_images.png'):
        assert (tmp_path / 'test1/report' / file).read_bytes() == (tmp_path / 'test2/report' / file).read_bytes(), file


def test_pretraining_resumes_from_the_newest_checkpoint(run_here, scenes, label_store, tmp_path):
    options = pretraining_options(scenes, label_store)
    command = ['train', 'configs/demo/pretrain.py', '--work-dir', tmp_path]
    assert run_here(*command, '--cfg-options', *options).returncode == 0
    longer = [*options, 'train_cfg.max_iters=3', 'train_cfg.val_interval=3']
    done = run_here(*command, '--resume', '--cfg-options', *longer)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'resumed epoch: 0, iter: 2' in done.stdout
    assert (tmp_path / 'iter_3.pth').is_file()
    assert list(tmp_path.glob('*/vis_data/events.out.tfevents.*'))


def fails_with(done, *words: str) -> None:
    """Exit status 2 and one line beginning with `error:` that holds these words."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_pretraining_without_data_says_what_is_missing(run_tool):
    if Path('data/imagenet').exists():
        pytest.skip('there is an ImageNet in data/imagenet')
    fails_with(run_tool('tools/pretrain.sh'), 'No image folder at data/imagenet/train')


def test_a_missing_store_is_said_with_the_command_that_makes_it(run_here, scenes, tmp_path):
    options = pretraining_options(scenes, tmp_path / 'labels')
    done = run_here('train', 'configs/demo/pretrain.py', '--work-dir', tmp_path, '--cfg-options', *options)
    fails_with(done, f'No label store at {tmp_path}/labels', 'tokenlabel annotate')


def test_a_corrupt_image_is_named_though_a_worker_reads_it(run_here, scenes, tmp_path):
    shutil.copytree(scenes / 'imagenet', tmp_path / 'imagenet')
    for path in (tmp_path / 'imagenet/train').rglob('*.jpg'):
        path.write_bytes(path.read_bytes()[:300])
    options = [*pretraining_options(tmp_path, None), 'model.targets.type=ImageLabels']
    done = run_here('train', 'configs/demo/pretrain.py', '--work-dir', tmp_path, '--cfg-options', *options)
    fails_with(done, '.jpg cannot be read as an image', 'replace or remove it')


def test_a_corrupt_segmentation_image_is_named(run_here, scenes, tmp_path):
    shutil.copytree(scenes / 'ade', tmp_path / 'ade')
    for path in (tmp_path / 'ade/images/training').iterdir():
        path.write_bytes(b'not an image')
    command = ['train', 'configs/demo/fpn.py', '--work-dir', tmp_path / 'run']
    fails_with(run_here(*command, '--cfg-options', *segmentation_options(tmp_path)), '.jpg cannot be read as an image')


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('trian_cfg.max_iters=1', 'did you mean `train_cfg`'),
        ('train_dataloader.batchsize=1', 'did you mean `batch_size`'),
        ('model.network.stem_widht=8', 'did you mean `stem_width`'),
        ('train_dataloader.sampler.type=EndlesSampler', 'EndlesSampler is not in the'),
        ('optim_wrapper.optimizer.type=AdmW', 'AdmW is not in the'),
    ],
)
def test_a_misspelt_option_is_named(run_here, scenes, label_store, tmp_path, option, words):
    options = [*pretraining_options(scenes, label_store), option]
    done = run_here('train', 'configs/demo/pretrain.py', '--work-dir', tmp_path, '--cfg-options', *options)
    fails_with(done, words)


def test_a_number_of_processes_that_is_none_is_refused(run_tool):
    fails_with(run_tool('tools/dist_train.sh', 'configs/upernet_lvvit.py', 'many'), "whole number, not 'many'")


def test_test_time_augmentation_needs_its_config(run_here, scenes, tmp_path):
    done = run_here('test', 'configs/demo/pretrain.py', tmp_path / 'none.pth', '--tta')
    fails_with(done, 'has no tta_model and tta_pipeline')


def test_a_missing_checkpoint_is_named(run_here, scenes, tmp_path):
    options = pretraining_options(scenes, None)
    command = ['test', 'configs/demo/pretrain.py', tmp_path / 'none.pth', '--work-dir', tmp_path]
    fails_with(run_here(*command, '--cfg-options', *options), 'none.pth')


def test_images_are_scenes_of_the_size_that_the_demo_configs_say(scenes):
    path = next((scenes / 'imagenet/train').rglob('*.jpg'))
    assert Image.open(path).size == (64, 64)


def test_a_dry_run_for_several_gpus_needs_neither_gpus_nor_data_and_writes_nothing(run_tool, run_here, tmp_path):
    options = [
        'train_dataloader.dataset.root=nowhere',
        'auto_scale_lr.enable=True',
        'auto_scale_lr.base_batch_size=256',
    ]
    config, run = 'configs/demo/pretrain.py', ['--dry-run', '--work-dir', tmp_path / 'run', '--cfg-options']
    done = run_tool('tools/pretrain.sh', config, '8', *run, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '8 processes x 32 images = 256' in done.stdout
    assert not (tmp_path / 'run').exists()
    fails_with(run_here('train', config, *run, 'model.network.model_name=lvit_s'), 'did you mean')


def test_an_evaluation_scores_labels_and_reassessed_labels_as_the_checkpoint_numbers_classes(
    run_here, scenes, tmp_path
):
    """A model whose classes are those of ImageNet backwards, and that always answers with its last."""
    network = {'num_classes': 1000, 'img_size': 32, 'patch_size': 16, 'embed_dim': 8, 'depth': 1, 'num_heads': 1}
    model = timm.create_model('lvvit_t', stem_width=8, **network)
    torch.nn.init.constant_(model.head.bias[-1:], 1e4)
    names = ImageNetInfo('imagenet-1k').label_names()[::-1]
    ours = {'architecture': 'lvvit_t', 'class_names': names}
    torch.save({'state_dict': model.state_dict(), 'tokenlabel': ours}, tmp_path / 'model.pth')
    for number, path in enumerate(sorted((scenes / 'imagenet/val').rglob('*.jpg'))[:3], 1):
        (tmp_path / 'val' / names[-1]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / 'val' / names[-1] / f'ILSVRC2012_val_{number:08d}.JPEG')
    (tmp_path / 'real.json').write_text(json.dumps([[3, 0], [], [999]]))
    options = [f'model.network.{name}={value}' for name, value in network.items()]
    options += [f'test_dataloader.dataset.root={tmp_path}/val', 'test_dataloader.dataset.transform.size=32']
    command = ['test', 'configs/demo/pretrain.py', tmp_path / 'model.pth', '--work-dir', tmp_path / 'run']
    command += ['--real', tmp_path / 'real.json', '--out', tmp_path / 'metrics.json']
    done = run_here(*command, '--cfg-options', *options, 'model.network.stem_width=8')
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics == {'top1': 100.0, 'top5': 100.0, 'real/top1': 50.0}
