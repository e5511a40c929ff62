"""Targets as configs name them; above all those that an annotator makes in every step."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from tests.places import CONFIGS
from tests.tiny_classifiers import LVVIT, tiny
from tokenlabel.data.images import LabeledImages
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.runner import Runner
from tokenlabel.engine.token_targets import AnnotatorImageLabels, AnnotatorTokenLabels, TokenLabels
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import load_annotator
from tokenlabel.labels.annotator.annotation import annotate
from tokenlabel.labels.annotator.inference import Inference
from tokenlabel.labels.store import LabelWriter, image_keys
from tokenlabel.labels.view_rule import Squash
from tokenlabel.objective.targets import distillation_targets, token_targets
from tokenlabel.transforms.image import EvalTransform

RESNET = {'channels': (16, 24, 32, 40), 'stem_width': 8}
# not ImageNet's, so that an input that is not renormalised shows
MEAN, STD = (0.2, 0.5, 0.7), (0.5, 0.4, 0.3)


def save(path, model) -> str:
    torch.save(model.state_dict(), path)
    return str(path)


@pytest.fixture
def resnet(tmp_path) -> dict:
    """An annotator of 7 classes for 64 x 64 pixels, cells of 32."""
    path = save(tmp_path / 'resnet.pth', tiny('resnet10t', **RESNET))
    return {'name': 'resnet10t', 'checkpoint': path, 'size': 64, 'model_kwargs': RESNET}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{number}.png')
    return folder


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels / 255 - mean) / std


def write_store(images: LabeledImages, annotator: dict, path, k: int) -> None:
    loaded = load_annotator(**annotator)
    writer = LabelWriter(
        path,
        image_keys(images.reader),
        annotator=loaded.record,
        num_classes=7,
        k=k,
        grid=(2, 2),
        view={'rule': 'squash', 'size': 64},
    )
    with writer:
        annotate(Inference(loaded, Squash(64), k), images.reader, writer)
        writer.finalise()


@pytest.mark.parametrize('temperature', [1.0, 2.0])
def test_online_targets_are_those_of_a_store_of_the_same_pixels(images, resnet, tmp_path, temperature):
    transform = EvalTransform(64, crop_pct=1.0)
    write_store(LabeledImages(images, transform), resnet, tmp_path / 'labels', k=3)
    data = LabeledImages(images, transform, tmp_path / 'labels')
    batch = torch.utils.data.default_collate([data[index] for index in range(3)])
    batch['image'] = normalised(batch['image'])
    online = AnnotatorTokenLabels(resnet, smoothing=0.1, k=3, temperature=temperature, mean=MEAN, std=STD)
    stored = TokenLabels(smoothing=0.1, temperature=temperature)
    for ours, theirs in zip(online(batch, (4, 4), 7).dense(), stored(batch, (4, 4), 7).dense(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=2e-3)  # a store keeps half precision


def test_the_student_s_view_is_resized_for_the_annotator(resnet):
    smooth = torch.linspace(0, 255, 32).expand(1, 3, 32, 32)
    shown = torch.nn.functional.interpolate(smooth, (64, 64), mode='bicubic', antialias=True)
    online = AnnotatorTokenLabels(resnet, mean=MEAN, std=STD)
    scores, classes = online.score_maps(normalised(smooth))
    expected = online.score_maps(normalised(shown))
    torch.testing.assert_close(scores, expected[0], atol=1e-4, rtol=1e-4)
    assert scores.shape == (1, 5, 2, 2) and torch.equal(classes, expected[1])


def test_an_annotator_is_neither_copied_nor_trained_nor_saved(make_runner, tmp_path):
    annotator = {'name': 'lvvit_t', 'checkpoint': save(tmp_path / 'a.pth', tiny('lvvit_t', **LVVIT)), 'size': 32}
    annotator['model_kwargs'] = LVVIT
    options = {
        'model.targets': {'_delete_': True, 'type': 'AnnotatorTokenLabels', 'annotator': annotator, 'smoothing': 0.1},
        'train_dataloader.dataset.label_store': None,
        'model.network.num_classes': 7,
        'val_cfg': None,
        'val_dataloader': None,
        'val_evaluator': None,
    }
    runner = make_runner(**options)
    targets = runner.model.targets
    before = {name: value.clone() for name, value in targets.annotator.dense.state_dict().items()}
    token_head = runner.model.model.aux_head.weight.clone()
    runner.train()
    assert not torch.equal(runner.model.model.aux_head.weight, token_head)
    assert 'train/loss_tokens' in runner.message_hub.log_scalars
    dense = targets.annotator.dense
    assert not dense.training and all(parameter.grad is None for parameter in dense.parameters())
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert copy.deepcopy(runner.model).targets is targets
    names = torch.load(f'{runner.work_dir}/iter_3.pth', weights_only=False)['state_dict']
    assert set(names) == set(runner.model.state_dict()) and not any('annotator' in name for name in names)
    trained = {id(parameter) for group in runner.optim_wrapper.param_groups for parameter in group['params']}
    assert not trained & {id(parameter) for parameter in dense.parameters()}


def test_the_config_trains_without_a_label_store(scenes, tmp_path):
    annotator = {'name': 'lvvit_t', 'checkpoint': save(tmp_path / 'a.pth', tiny('lvvit_t', **LVVIT)), 'size': 32}
    data = {'num_workers': 0, 'persistent_workers': False, 'batch_size': 20, 'pin_memory': False}
    loaders = {
        f'{loader}_dataloader': data | {'dataset': {'root': f'{scenes}/imagenet/{split}', 'transform': {'size': 32}}}
        for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val'))
    }
    options = loaders | {
        'work_dir': str(tmp_path / 'run'),
        'log_level': 'ERROR',
        'train_cfg.max_epochs': 1,
        'model.network': LVVIT | {'model_name': 'lvvit_t', 'num_classes': 7},
        'model.targets.annotator': annotator | {'model_kwargs': LVVIT, '_delete_': True},
        'val_cfg': None,
        'val_dataloader': None,
        'val_evaluator': None,
        'visualizer.vis_backends': [{'type': 'LocalVisBackend'}],
    }
    config = load_config(CONFIGS / 'targets/online_labels.py', options)
    config.experiment_name = tmp_path.name
    register_imports(config)
    runner = Runner.from_cfg(config)
    assert runner.model.targets.smoothing == 0.1
    before = runner.model.model.aux_head.weight.clone()
    runner.train()
    assert runner.iter == 2 and not torch.equal(runner.model.model.aux_head.weight, before)


def test_an_annotator_of_other_classes_than_the_network_is_refused(make_runner, resnet):
    targets = {'_delete_': True, 'type': 'AnnotatorTokenLabels', 'annotator': resnet}
    with pytest.raises(UserError, match=r'The annotator resnet10t has 7 classes but the network has 10'):
        make_runner(**{'model.targets': targets, 'train_dataloader.dataset.label_store': None}).train()


def test_another_mean_than_that_of_the_images_is_refused(make_runner, resnet):
    targets = {'_delete_': True, 'type': 'AnnotatorTokenLabels', 'annotator': resnet, 'mean': (0.5, 0.5, 0.5)}
    with pytest.raises(UserError, match=r'model\.targets\.mean is .* but model\.data_preprocessor\.mean is \(0\.485'):
        make_runner(**{'model.targets': targets})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_on_a_gpu_the_annotator_says_the_same(resnet):
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = AnnotatorTokenLabels(resnet, k=7)({'image': images}, (2, 2), 7).tokens.dense()
    result = AnnotatorTokenLabels(resnet, k=7)({'image': images.cuda()}, (2, 2), 7).tokens.dense()
    torch.testing.assert_close(result.cpu(), expected, atol=0.02, rtol=0.05)  # bfloat16


def test_an_annotator_is_loaded_only_when_it_is_asked_for():
    targets = AnnotatorTokenLabels({'name': 'no_such_network'})
    assert 'annotator' not in vars(pickle.loads(pickle.dumps(targets)))


@pytest.mark.parametrize(('k', 'temperature'), [(1, 1.0), (2, 3.0)])
def test_fewer_scores_and_a_temperature_reach_the_targets(k, temperature):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 4, 4, generator=generator).sort(1, descending=True).values
    classes = torch.rand(2, 7, 4, 4, generator=generator).topk(3, 1).indices
    view = torch.eye(3)[:2].repeat(2, 1, 1)
    batch = {'scores': scores, 'classes': classes, 'view': view, 'map_view': view}
    ours = TokenLabels(k=k, temperature=temperature)(batch, (2, 2), 7).dense()
    theirs = token_targets(scores[:, :k] / temperature, classes[:, :k], view, (2, 2), 7).dense()
    torch.testing.assert_close(ours, theirs)
    ours = AnnotatorImageLabels(k=k, temperature=temperature)(batch, (2, 2), 7).dense()[0]
    torch.testing.assert_close(ours, distillation_targets(scores[:, :k] / temperature, classes[:, :k], 7).dense()[0])
