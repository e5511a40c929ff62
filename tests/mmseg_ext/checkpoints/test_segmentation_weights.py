"""Weights from pretraining, released classifiers and segmentation models reach backbone and neck."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.registry import MODELS

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.checkpoints.segmentation_weights import ReleasedNamesHook, local_path, released_to_ours
from tokenlabel import models
from tokenlabel.errors import UserError

TINY = dict(embed_dim=32, depth=3, num_heads=4)
PYRAMID = dict(type='TokenPyramid', in_channels=32, out_channels=40, norm_cfg=dict(type='BN'))
FPN = dict(type='TokenPyramidFPN', pyramid=PYRAMID, fpn=dict(in_channels=[32, 32, 32, 40], out_channels=8, num_outs=4))


def backbone(**changes) -> torch.nn.Module:
    return MODELS.build({'type': 'LVViT', 'arch': None, 'img_size': 96, 'out_indices': (0, 1), **TINY, **changes})


def pretrained(path, **extra) -> dict:
    return dict(type='Pretrained', checkpoint=str(path), **extra)


def classifier() -> torch.nn.Module:
    return models.LVViT(img_size=64, num_classes=5, **TINY)


def released_segmentation_weights() -> dict[str, torch.Tensor]:
    """Names of a released file: the pyramid is part of the backbone, all blocks are there."""
    body = backbone(out_indices=(0, 1, 2), img_size=64).state_dict()
    return {f'backbone.{name}': x for name, x in (body | MODELS.build(PYRAMID).state_dict()).items()}


def engine_checkpoint(model: torch.nn.Module, averaged: torch.nn.Module, architecture: str = 'tiny') -> dict:
    """As our pretraining saves it: with averaging on, MMEngine exchanges the two sets of weights."""
    return {
        'meta': {},
        'state_dict': {f'model.{name}': x for name, x in averaged.state_dict().items()},
        'ema_state_dict': {f'module.model.{name}': x for name, x in model.state_dict().items()}
        | {'steps': torch.tensor(3)},
        'tokenlabel': {'architecture': architecture, 'num_classes': 5, 'token_score_weight': 0.5},
    }


def assert_took(model: torch.nn.Module, source: dict[str, torch.Tensor]) -> None:
    for name, x in model.state_dict().items():
        if name != 'pos_embed':
            assert torch.equal(x, source[name]), name


def test_a_released_classifier_fills_the_backbone_at_its_grid(tmp_path):
    source = classifier()
    torch.save({'state_dict': {f'module.{k}': v for k, v in source.state_dict().items()}}, tmp_path / 'c.pth.tar')
    model = backbone(init_cfg=pretrained(tmp_path / 'c.pth.tar'))
    model.init_weights()
    assert_took(model, source.state_dict())
    assert model.pos_embed.shape == (1, 37, 32)
    assert torch.equal(model.pos_embed[:, 0], source.pos_embed[:, 0])


def test_pretrained_is_short_for_init_cfg(tmp_path):
    source = classifier()
    torch.save(source.state_dict(), tmp_path / 'c.pth')
    model = backbone(pretrained=str(tmp_path / 'c.pth'))
    model.init_weights()
    assert_took(model, source.state_dict())


@pytest.mark.parametrize('ema', [True, False])
def test_our_pretraining_gives_its_averaged_weights_unless_raw_ones_are_wanted(tmp_path, ema):
    raw, averaged = classifier(), classifier()
    torch.save(engine_checkpoint(raw, averaged), tmp_path / 'p.pth')
    model = backbone(init_cfg=pretrained(tmp_path / 'p.pth', ema=ema))
    model.init_weights()
    assert_took(model, (averaged if ema else raw).state_dict())


def test_a_released_segmentation_model_fills_backbone_and_neck(tmp_path):
    state = released_segmentation_weights() | {'decode_head.conv_seg.bias': torch.zeros(3)}
    torch.save({'meta': {}, 'state_dict': state}, tmp_path / 's.pth')
    model, neck = backbone(init_cfg=pretrained(tmp_path / 's.pth')), MODELS.build(PYRAMID)
    neck.init_cfg = pretrained(tmp_path / 's.pth')
    model.init_weights()
    neck.init_weights()
    for part in (model, neck):
        assert_took(part, {name.removeprefix('backbone.'): x for name, x in state.items()})


@pytest.mark.parametrize('prefix', ['neck.', 'neck.pyramid.'])
def test_our_segmentation_model_fills_a_pyramid_wherever_it_has_its_own(tmp_path, prefix):
    source = MODELS.build(PYRAMID)
    torch.save({'state_dict': {f'{prefix}{k}': v for k, v in source.state_dict().items()}}, tmp_path / 's.pth')
    neck = MODELS.build(PYRAMID | {'init_cfg': pretrained(tmp_path / 's.pth')})
    neck.init_weights()
    assert_took(neck, source.state_dict())


@pytest.mark.parametrize('neck', [PYRAMID, FPN], ids=['TokenPyramid', 'TokenPyramidFPN'])
def test_load_from_takes_a_released_segmentation_file_as_it_is(neck):
    model = torch.nn.ModuleDict({'backbone': backbone(out_indices=(0, 1, 2)), 'neck': MODELS.build(neck)})
    state = released_segmentation_weights()
    checkpoint = {'state_dict': dict(state)}
    ReleasedNamesHook().after_load_checkpoint(SimpleNamespace(model=model), checkpoint)
    _load_checkpoint_to_model(model, checkpoint, strict=neck is PYRAMID)
    pyramid = model['neck'] if neck is PYRAMID else model['neck'].pyramid
    assert_took(pyramid, {name.removeprefix('backbone.'): x for name, x in state.items()})


def test_names_of_our_own_models_pass_unchanged():
    ours = {'backbone.cls_token': torch.zeros(1), 'neck.side_layer1.0.weight': torch.ones(1)}
    assert released_to_ours(ours) == ours


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match='nowhere'):
        backbone(init_cfg=pretrained(tmp_path / 'nowhere.pth')).init_weights()


def test_weights_of_another_width_are_refused(tmp_path):
    torch.save(
        models.LVViT(img_size=64, num_classes=5, embed_dim=48, depth=3, num_heads=4).state_dict(), tmp_path / 'c.pth'
    )
    with pytest.raises(UserError, match=r'c\.pth does not fit'):
        backbone(init_cfg=pretrained(tmp_path / 'c.pth')).init_weights()


def test_a_backbone_does_not_start_from_weights_that_are_nan(tmp_path):
    state = classifier().state_dict()
    state['blocks.1.mlp.fc1.bias'][3] = float('nan')
    torch.save(state, tmp_path / 'c.pth')
    with pytest.raises(UserError, match=r'c\.pth holds weights that are NaN .*blocks\.1\.mlp\.fc1\.bias'):
        backbone(init_cfg=pretrained(tmp_path / 'c.pth')).init_weights()


def test_a_pretraining_run_of_another_architecture_is_refused_by_name(tmp_path):
    torch.save(engine_checkpoint(classifier(), classifier(), 'lvvit_t'), tmp_path / 'p.pth')
    model = backbone(arch='lvvit_s', init_cfg=pretrained(tmp_path / 'p.pth'))
    with pytest.raises(UserError, match=r'lvvit_t and the backbone is lvvit_s: set model\.backbone\.arch'):
        model.init_weights()


def test_a_classifier_has_no_pyramid_to_give(tmp_path):
    torch.save(classifier().state_dict(), tmp_path / 'c.pth')
    with pytest.raises(UserError, match='holds no token pyramid'):
        MODELS.build(PYRAMID | {'init_cfg': pretrained(tmp_path / 'c.pth')}).init_weights()


def test_an_address_is_looked_up_in_the_cache_before_it_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints' / 'c.pth').touch()
    assert local_path('https://example.org/releases/c.pth') == tmp_path / 'checkpoints' / 'c.pth'


@pytest.mark.parametrize('address', ['https://example.org/..', 'https://example.org/', 'https://example.org'])
def test_an_address_names_a_file_and_no_folder_of_the_cache(tmp_path, monkeypatch, address):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(UserError, match='does not end in a file name'):
        local_path(address)


def test_a_failed_download_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(UserError, match=r'cannot be downloaded.*save it as .*c\.pth'):
        local_path('http://127.0.0.1:9/c.pth')
