"""Weights of pretraining, of timm and of segmentation models reach a timm backbone."""

from pathlib import Path

import pytest
import timm
import torch
from mmseg.registry import MODELS
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor, nn

import mmseg_ext  # noqa: F401  (registers the names)
from tokenlabel.errors import UserError
from tokenlabel.models import TokenLabelModel

DEIT = dict(embed_dim=32, depth=4, num_heads=2)
SWIN = dict(embed_dim=16, depths=(2, 2, 1, 1), window_size=2)
ARGUMENTS = {'deit_small_patch16_224': DEIT, 'swin_tiny_patch4_window7_224': SWIN, 'resnet10t': {}}
FAMILIES = list(ARGUMENTS)
DEIT_NAME = FAMILIES[0]


def backbone(name: str = DEIT_NAME, source: Path | None = None, **changes) -> nn.Module:
    init_cfg = None if source is None else dict(type='Pretrained', checkpoint=str(source))
    arguments = dict(type='TimmTokens', model_name=name, img_size=96, init_cfg=init_cfg) | ARGUMENTS[name] | changes
    model = MODELS.build(arguments)
    model.init_weights()
    return model


def classifier(name: str = DEIT_NAME) -> nn.Module:
    size = {} if name.startswith('resnet') else dict(img_size=64)
    return timm.create_model(name, num_classes=5, **size, **ARGUMENTS[name])


def saved(state: dict, path: Path) -> Path:
    torch.save(state, path)
    return path


def assert_took(model: nn.Module, source: dict[str, Tensor]) -> None:
    for name, x in model.model.state_dict().items():
        if x.shape == source[name].shape:
            assert torch.equal(x, source[name]), name
        else:
            assert name == 'pos_embed', name


@pytest.mark.parametrize(
    ('name', 'ema'), [(FAMILIES[0], True), (FAMILIES[0], False), *[(x, True) for x in FAMILIES[1:]]]
)
def test_a_pretraining_checkpoint_fills_the_backbone_with_averaged_or_raw_weights(name, ema, tmp_path):
    size = {} if name.startswith('resnet') else dict(img_size=64)
    raw, averaged = (TokenLabelModel(name, num_classes=5, **size, **ARGUMENTS[name]) for _ in range(2))
    checkpoint = {  # with averaging on, MMEngine exchanges the two sets of weights
        'state_dict': {f'model.{key}': x for key, x in averaged.state_dict().items()},
        'ema_state_dict': {f'module.model.{key}': x for key, x in raw.state_dict().items()},
        'tokenlabel': {'architecture': name},
    }
    path = saved(checkpoint, tmp_path / 'epoch_1.pth')
    model = backbone(name, init_cfg=dict(type='Pretrained', checkpoint=str(path), ema=ema))
    assert_took(model, (averaged if ema else raw).backbone.state_dict())


@pytest.mark.parametrize(
    ('name', 'suffix'), [(DEIT_NAME, '.pth'), (FAMILIES[1], '.safetensors'), (FAMILIES[2], '.pth')]
)
def test_a_file_in_the_names_of_timm_fills_the_backbone(name, suffix, tmp_path):
    source, path = classifier(name), tmp_path / f'model{suffix}'
    torch.save({'model': source.state_dict()}, path) if suffix == '.pth' else save_file(source.state_dict(), path)
    assert_took(backbone(name, path), source.state_dict())


def test_position_embeddings_are_resampled_as_timm_does(tmp_path):
    source = classifier()
    model = backbone(source=saved(source.state_dict(), tmp_path / 'a.pth'), img_size=(96, 160))
    torch.testing.assert_close(model.model.pos_embed, resample_abs_pos_embed(source.pos_embed, (6, 10)))


def test_bias_tables_are_resized_to_other_windows_as_timm_does(tmp_path):
    source = classifier(FAMILIES[1])
    model = backbone(FAMILIES[1], saved(source.state_dict(), tmp_path / 'a.pth'), img_size=128, window_size=4)
    table = 'layers.0.blocks.0.attn.relative_position_bias_table'
    expected = resize_rel_pos_bias_table(source.get_parameter(table), (4, 4), (49, 3))
    torch.testing.assert_close(model.model.get_parameter(table), expected)


def test_blocks_that_are_not_needed_are_left_out(tmp_path):
    source = classifier()
    model = backbone(source=saved(source.state_dict(), tmp_path / 'a.pth'), out_indices=(0, 1))
    assert_took(model, source.state_dict())
    assert not any('blocks.2' in name for name in model.state_dict())


def test_levels_that_are_not_needed_are_left_out(tmp_path):
    source = classifier(FAMILIES[1])
    model = backbone(FAMILIES[1], saved(source.state_dict(), tmp_path / 'a.pth'), out_indices=(0, 1, 2))
    assert_took(model, source.state_dict())


def test_a_segmentation_model_of_ours_fills_the_backbone_of_another_crop(tmp_path):
    trained = backbone(img_size=64)
    state = {f'backbone.{name}': x for name, x in trained.state_dict().items()} | {'decode_head.w': torch.ones(1)}
    assert_took(backbone(source=saved({'state_dict': state}, tmp_path / 'iter_1.pth')), trained.model.state_dict())


def test_weights_trained_at_another_crop_load():
    large, small = backbone(img_size=96), backbone(img_size=64)
    small.load_state_dict(large.state_dict())
    assert_took(small, large.model.state_dict())


def test_timm_publishes_the_weights(tmp_path):
    source = classifier()
    path = saved(source.state_dict(), tmp_path / 'hub.pth')
    model = backbone(pretrained=True, pretrained_cfg_overlay=dict(file=str(path), num_classes=5))
    assert_took(model, source.state_dict())


def test_weights_that_timm_cannot_provide_are_reported():
    overlay = dict(url='', hf_hub_id=None, file='/nowhere/deit.pth')
    with pytest.raises(UserError, match='pretrained to a file'):
        backbone(pretrained=True, pretrained_cfg_overlay=overlay)


def test_without_a_checkpoint_the_weights_of_construction_stay():
    model = backbone()
    before = model.model.pos_embed.clone()
    model.init_weights()
    assert torch.equal(model.model.pos_embed, before)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda state: state.pop('blocks.1.mlp.fc1.weight'), r'1 missing \(blocks\.1\.mlp\.fc1\.weight\)'),
        (lambda state: state.update(extra=torch.ones(1)), r'1 unexpected \(extra\)'),
        (lambda state: state.update({'cls_token': torch.ones(1, 1, 8)}), r'cls_token \[1, 1, 8\] instead of'),
        (lambda state: state.pop('patch_embed.proj.weight'), 'patch_embed.proj.weight'),
    ],
)
def test_any_other_difference_is_named(change, message, tmp_path):
    state = classifier().state_dict()
    change(state)
    with pytest.raises(UserError, match=message):
        backbone(source=saved(state, tmp_path / 'a.pth'))


def test_another_architecture_is_refused_by_its_name(tmp_path):
    checkpoint = {'state_dict': classifier().state_dict(), 'tokenlabel': {'architecture': 'swin_tiny'}}
    with pytest.raises(UserError, match=r'of swin_tiny and .* set model\.backbone\.model_name'):
        backbone(source=saved(checkpoint, tmp_path / 'a.pth'))


def test_weights_of_another_family_are_refused(tmp_path):
    with pytest.raises(UserError, match='does not fit'):
        backbone(source=saved(classifier('resnet10t').state_dict(), tmp_path / 'a.pth'))
