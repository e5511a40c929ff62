"""The released segmentation models: every name and shape has its place, and features are the released ones."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner as MMEngineRunner
from mmseg.registry import MODELS

import mmseg_ext
from mmseg_ext.checkpoints.segmentation_weights import ReleasedNamesHook, released_to_ours, segmentation_in
from tests.fixtures_io import below, cases, load
from tests.places import CONFIGS
from tests.released_segmentation import (
    RELEASED,
    head_shapes,
    random_weights,
    released_shapes,
    write_released,
)
from tokenlabel.checkpoints.conversion import read_weights, save
from tokenlabel.checkpoints.weights import read_checkpoint
from tokenlabel.cli import test
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError

SIZES = sorted(RELEASED)


@pytest.fixture(autouse=True)
def mmseg_scope():
    init_default_scope('mmseg')


def released_config(size: str) -> Config:
    return Config.fromfile(CONFIGS / f'released/upernet_lvvit_{size}.py')


def fixture_config() -> Config:
    """`configs/released` with the small backbone of the fixture."""
    case, config = cases()['segmentation_backbone'], released_config('s')
    dim, top = case['embed_dim'], case['out_channels']
    norm_cfg = dict(type='BN')
    config.model.backbone.update(
        arch=None,
        img_size=case['img_size'],
        embed_dim=dim,
        depth=case['depth'],
        num_heads=case['num_heads'],
        stem_width=case['stem_dim'],
        residual_divisor=case['skip_lam'],
        out_indices=case['out_indices'],
    )
    config.model.neck.update(in_channels=dim, out_channels=top, norm_cfg=norm_cfg)
    config.model.decode_head.update(in_channels=[dim, dim, dim, top], channels=8, num_classes=5, norm_cfg=norm_cfg)
    config.model.auxiliary_head.update(in_channels=dim, channels=8, num_classes=5, norm_cfg=norm_cfg)
    return config


def fixture_weights() -> dict[str, torch.Tensor]:
    """Weights of the fixture with heads beside them, in released names."""
    case = cases()['segmentation_backbone']
    body = below(load('segmentation_backbone'), 'state.')
    heads = head_shapes(case['embed_dim'], case['out_channels'], 8, classes=5)
    return {f'backbone.{name}': x for name, x in body.items()} | random_weights(heads)


def make_runner(config: Config, work_dir: Path) -> Runner:
    """What `tools/test.py` builds, without data."""
    keys = ('train_dataloader', 'train_cfg', 'val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader')
    config.update(dict.fromkeys((*keys, 'test_cfg', 'test_evaluator', 'optim_wrapper', 'param_scheduler')))
    config.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    config.update(work_dir=str(work_dir), log_level='ERROR')
    return Runner.from_cfg(config)


@pytest.fixture(scope='module')
def runner_of_fixture(tmp_path_factory) -> Runner:
    init_default_scope('mmseg')
    return make_runner(fixture_config(), tmp_path_factory.mktemp('runner'))


@pytest.fixture
def runner(runner_of_fixture) -> Runner:
    """A runner of the small model, all of whose weights are zeros."""
    for x in runner_of_fixture.model.state_dict().values():
        x.zero_()
    return runner_of_fixture


@pytest.mark.parametrize('size', SIZES)
def test_every_name_of_a_released_file_has_its_place_and_none_is_missing(size):
    with torch.device('meta'):
        model = MODELS.build(released_config(size).model)
    released = {name: tuple(shape) for name, shape in released_to_ours(released_shapes(size)).items()}
    assert {name: tuple(x.shape) for name, x in model.state_dict().items()} == released
    assert sum(x.numel() for x in model.parameters()) == pytest.approx(RELEASED[size]['parameters'], abs=1e4)


@pytest.mark.parametrize(('size', 'divisor'), [('s', 2), ('m', 2), ('l', 1)])
def test_residual_branches_are_divided_as_the_release_did(size, divisor):
    with torch.device('meta'):
        backbone = MODELS.build(released_config(size).model.backbone)
    assert {getattr(block.ls1, 'divisor', 1) for block in backbone.blocks} == {divisor}


@pytest.mark.parametrize(('size', 'rate'), [('s', 0.1), ('m', 0.2), ('l', 0.5)])
def test_dropout_of_the_mlp_alone_takes_the_place_of_stochastic_depth(size, rate):
    with torch.device('meta'):
        blocks = MODELS.build(released_config(size).model.backbone).blocks
    rates = np.linspace(0, rate, len(blocks))
    assert [block.mlp.drop1.p for block in blocks] == pytest.approx(rates)
    assert [block.mlp.drop2.p for block in blocks] == pytest.approx(rates)
    assert {type(block.drop_path1) for block in blocks} == {torch.nn.Identity}
    assert {block.attn.proj_drop.p for block in blocks} == {0}


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('shape', ['square', 'wide'])
def test_a_released_file_loads_completely_and_its_features_are_the_released_ones(shape, prefix, runner, tmp_path):
    file = write_released(tmp_path / 'r.pth', {f'{prefix}{name}': x for name, x in fixture_weights().items()})
    fixture = load('segmentation_backbone')
    runner.load_checkpoint(str(file))
    with torch.no_grad():
        levels = runner.model.eval().extract_feat(fixture[f'{shape}.input'])
    for i, level in enumerate(levels):
        expected = fixture[f'{shape}.level{i}']
        torch.testing.assert_close(level, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    for name, x in released_to_ours(fixture_weights()).items():
        assert torch.equal(runner.model.state_dict()[name], x), name


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_a_converted_file_loads_as_its_source_does(suffix, runner, tmp_path):
    weights = read_weights(write_released(tmp_path / 'r.pth', fixture_weights()))
    save(tmp_path / f'ours.{suffix}', segmentation_in(weights, 'ours' if suffix == 'pth' else 'safetensors'))
    runner.load_checkpoint(str(tmp_path / f'ours.{suffix}'))
    for name, x in released_to_ours(fixture_weights()).items():
        assert torch.equal(runner.model.state_dict()[name], x), name


def test_training_starts_from_a_released_file_by_load_from(tmp_path):
    config = fixture_config()
    config.load_from = str(write_released(tmp_path / 'r.pth', fixture_weights()))
    runner = make_runner(config, tmp_path)
    runner.load_or_resume()
    assert torch.equal(runner.model.decode_head.conv_seg.weight, fixture_weights()['decode_head.conv_seg.weight'])


def test_a_released_file_loads_under_test_time_augmentation(tmp_path):
    config = fixture_config()
    config.model = config.tta_model | dict(module=config.model)
    runner = make_runner(config, tmp_path)
    runner.load_checkpoint(str(write_released(tmp_path / 'r.pth', fixture_weights())))
    for name, x in released_to_ours(fixture_weights()).items():
        assert torch.equal(runner.model.state_dict()[f'module.{name}'], x), name


def test_released_weights_of_l_in_a_network_that_divides_by_3_are_warned_about(monkeypatch):
    config = fixture_config()
    config.model.backbone.update(arch='lvvit_l', stem_width=64, residual_divisor=3.0)
    said = []
    monkeypatch.setattr(
        mmseg_ext.checkpoints.segmentation_weights, 'print_log', lambda text, **options: said.append(text)
    )
    with torch.device('meta'):
        model = MODELS.build(config.model)
    checkpoint = {'state_dict': fixture_weights()}
    ReleasedNamesHook().after_load_checkpoint(SimpleNamespace(model=model), checkpoint)
    assert 'set model.backbone.residual_divisor=1' in ' '.join(said)


def test_a_released_file_of_other_heads_is_refused_by_name(tmp_path):
    config = fixture_config()
    config.model.decode_head.num_classes = 7
    file = write_released(tmp_path / 'r.pth', fixture_weights())
    with pytest.raises(UserError, match=r'r\.pth does not fit this model .*decode_head\.conv_seg'):
        make_runner(config, tmp_path).load_checkpoint(str(file))


def test_what_an_old_trainer_left_beside_the_weights_does_not_stand_in_the_way(runner, tmp_path):
    extras = dict(
        PALETTE=np.zeros((150, 3), np.uint8),
        hook_msgs=dict(best_score=np.float64(0.479), best_ckpt=Path('work_dirs/best.pth')),
    )
    file = write_released(tmp_path / 'r.pth', fixture_weights(), **extras)
    runner.load_checkpoint(str(file))
    assert read_checkpoint(file)['meta']['iter'] == 160000


def test_an_address_in_load_from_is_read_as_safely_as_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    write_released(tmp_path / 'checkpoints/r.pth', fixture_weights(), more=MMEngineRunner)
    config = fixture_config()
    config.load_from = 'https://example.org/v1.1-seg/r.pth'
    with pytest.raises(UserError, match=r'r\.pth is refused because reading it could run code'):
        make_runner(config, tmp_path).load_or_resume()


@pytest.mark.slow
@pytest.mark.parametrize('size', SIZES)
def test_a_file_of_full_size_is_evaluated_by_the_tool(size, ade20k, tmp_path, monkeypatch):
    file = write_released(tmp_path / 'r.pth', random_weights(released_shapes(size)))
    out = tmp_path / 'metrics.json'
    data = 'test_dataloader.dataset'
    # fmt: off
    options = [
        f'{data}.data_root={ade20k}', f'{data}.indices=[0]', 'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False', f'{data}.pipeline.1.scale=(256,128)',
        'model.test_cfg.crop_size=(128,128)', 'model.test_cfg.stride=(96,96)',
    ]
    # fmt: on
    command = ['test.py', str(CONFIGS / f'released/upernet_lvvit_{size}.py'), str(file), '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', [*command, '--work-dir', str(tmp_path), '--cfg-options', *options])
    assert test.main() == 0
    assert json.loads(out.read_text())['mIoU'] >= 0
