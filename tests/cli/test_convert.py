"""`tokenlabel convert`: any layout into any other that can hold it, bit for bit, and in words."""

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmseg.registry import MODELS
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.checkpoints.segmentation_weights import load_backbone, released_to_ours
from tests.commands import run_command
from tests.released_segmentation import head_shapes, pyramid_shapes, random_weights, write_released
from tokenlabel.models import LVViT, TokenLabelModel, load_checkpoint, read_checkpoint, state_dict_of

TINY = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, stem_width=8)
DEIT = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
CONFIG = """
custom_imports = dict(imports=['tokenlabel.engine'], allow_failed_imports=False)
model = dict(type='TokenLabelClassifier', network=dict({network}))
"""
SEGMENTATION = """
custom_imports = dict(imports=['mmseg_ext', 'tokenlabel.engine'], allow_failed_imports=False)
default_scope = 'mmseg'
norm_cfg = dict(type='BN')
model = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='LVViT', arch=None, img_size={side}, patch_size=8, embed_dim=24, depth=2, num_heads=2, stem_width=8,
        out_indices=(0, 1),
    ),
    neck=dict(type='TokenPyramid', in_channels=24, out_channels=40, norm_cfg=norm_cfg),
    decode_head=dict(
        type='UPerHead', in_channels=[24, 24, 24, 40], in_index=[0, 1, 2, 3], channels=8, num_classes=5,
        norm_cfg=norm_cfg, align_corners=False,
    ),
    auxiliary_head=dict(
        type='FCNHead', in_channels=24, in_index=2, channels=8, num_convs=1, concat_input=False, num_classes=5,
        norm_cfg=norm_cfg, align_corners=False,
    ),
)
"""


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """Runs the command in a folder of its own; returns the exit status and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(source: str, target: str, to: str, *options: str) -> tuple[int, str]:
        status = run_command('convert', source, target, '--to', to, *options)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def lvvit(seed: int = 0, **changes) -> LVViT:
    torch.manual_seed(seed)
    return LVViT(**(TINY | {'num_classes': 5} | changes)).eval()


def deit(seed: int = 0) -> TokenLabelModel:
    torch.manual_seed(seed)
    return TokenLabelModel('deit_small_patch16_224', num_classes=5, **DEIT).eval()


def segmentation_weights() -> dict[str, Tensor]:
    """In released names."""
    body = {name: x for name, x in lvvit().state_dict().items() if not name.startswith(('norm', 'head', 'aux_head'))}
    parts = random_weights(pyramid_shapes(24, 40))
    return {f'backbone.{name}': x for name, x in (body | parts).items()} | random_weights(head_shapes(24, 40, 8, 5))


def in_engine(model: nn.Module, averaged: nn.Module | None = None, **noted) -> dict:
    """A checkpoint of our pretraining, with what is needed to continue."""
    content = {'meta': {'iter': 7}, 'state_dict': {f'model.{name}': x for name, x in model.state_dict().items()}}
    if averaged is not None:
        content['ema_state_dict'] = {f'module.{name}': x for name, x in content['state_dict'].items()}
        content['ema_state_dict']['steps'] = torch.tensor(7)
        content['state_dict'] = {f'model.{name}': x for name, x in averaged.state_dict().items()}
    noted = {
        'architecture': 'lvvit_s',
        'num_classes': 5,
        'class_names': list('abcde'),
        'token_score_weight': 0.0,
    } | noted
    return content | {'tokenlabel': noted, 'optimizer': {'state': {}}, 'message_hub': {}}


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name, x in expected.items():
        assert state[name].dtype == x.dtype and torch.equal(state[name], x), name


# Round trips


@pytest.mark.parametrize('between', ['timm', 'safetensors'])
def test_a_pretraining_checkpoint_comes_back_bit_for_bit(convert, between):
    torch.save(in_engine(lvvit(1)), 'ours.pth')
    suffix = 'safetensors' if between == 'safetensors' else 'pth'
    assert convert('ours.pth', f'between.{suffix}', between)[0] == 0
    assert convert(f'between.{suffix}', 'again.pth', 'ours')[0] == 0
    assert_same(read_checkpoint('again.pth')['state_dict'], read_checkpoint('ours.pth')['state_dict'])


def test_what_is_noted_beside_the_weights_travels_in_the_header_of_safetensors(convert):
    torch.save(in_engine(lvvit(1)), 'ours.pth')
    convert('ours.pth', 'bare.safetensors', 'safetensors')
    assert_same(load_file('bare.safetensors'), lvvit(1).state_dict())
    convert('bare.safetensors', 'again.pth', 'ours')
    assert read_checkpoint('again.pth')['tokenlabel'] == read_checkpoint('ours.pth')['tokenlabel']
    model = lvvit()
    load_checkpoint(model, 'bare.safetensors', strict=False)
    assert model.token_score_weight == 0


def test_a_token_label_model_comes_back_from_safetensors_bit_for_bit(convert):
    torch.save(in_engine(deit(1), architecture='deit_small_patch16_224', token_score_weight=0.5), 'ours.pth')
    convert('ours.pth', 'bare.safetensors', 'safetensors')
    convert('bare.safetensors', 'again.pth', 'ours')
    assert read_checkpoint('again.pth')['tokenlabel'] == read_checkpoint('ours.pth')['tokenlabel']
    assert_same(read_checkpoint('again.pth')['state_dict'], read_checkpoint('ours.pth')['state_dict'])


@pytest.mark.parametrize('between', ['ours', 'safetensors'])
def test_a_released_segmentation_model_gets_our_names_and_stays_bit_for_bit(convert, between):
    write_released('released.pth', segmentation_weights())
    suffix = 'safetensors' if between == 'safetensors' else 'pth'
    status, said = convert('released.pth', f'between.{suffix}', between)
    assert status == 0, said
    assert 'renamed 36 weights (backbone.side_layer1.0.weight -> neck.side_layer1.0.weight)' in said
    convert(f'between.{suffix}', 'again.pth', 'ours')
    again = read_checkpoint('again.pth')
    assert_same(again['state_dict'], released_to_ours(segmentation_weights()))
    meta = again['meta']['dataset_meta']
    assert (list(meta['classes']), meta['palette']) == (['wall', 'building'], [[120, 120, 120], [180, 120, 120]])


# Each layout is what its readers expect


def test_ours_from_a_released_classifier_is_a_pretraining_checkpoint(convert):
    state = {f'module.{name}': x for name, x in lvvit(1).state_dict().items()}
    torch.save({'state_dict': state, 'args': argparse.Namespace(lr=1), 'epoch': 3}, 'released.pth.tar')
    status, said = convert('released.pth.tar', 'ours.pth', 'ours')
    assert status == 0, said
    assert 'left out what is not a weight: args, epoch' in said
    assert 'renamed 50 weights (module.cls_token -> cls_token)' in said
    assert read_checkpoint('ours.pth')['tokenlabel'] == {'num_classes': 5, 'token_score_weight': 0.5}
    model = lvvit()
    load_checkpoint(model, 'ours.pth')
    assert_same(model.state_dict(), lvvit(1).state_dict())


def test_a_published_size_is_recognised_by_its_width_and_depth(convert):
    with torch.device('meta'):
        model = timm.create_model('lvvit_t')
    torch.save({name: torch.zeros(x.shape) for name, x in model.state_dict().items()}, 'released.pth')
    status, said = convert('released.pth', 'ours.pth', 'ours')
    assert status == 0, said
    noted = read_checkpoint('ours.pth')['tokenlabel']
    assert noted == {'architecture': 'lvvit_t', 'num_classes': 1000, 'token_score_weight': 0.5}


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_timm_reads_the_backbone_of_a_token_label_model(convert, suffix):
    torch.save(in_engine(deit(1), architecture='deit_small_patch16_224'), 'ours.pth')
    status, said = convert('ours.pth', f'timm.{suffix}', 'timm')
    assert status == 0
    assert "dropped 2 weights, which the backbone's layout does not have: aux_head" in said
    model = timm.create_model(
        'deit_small_patch16_224',
        num_classes=5,
        pretrained=True,
        pretrained_cfg_overlay={'file': f'timm.{suffix}', 'num_classes': 5},
        **DEIT,
    )
    assert_same(model.state_dict(), deit(1).backbone.state_dict())


def test_timm_reads_the_backbone_of_a_segmentation_model(convert):
    write_released('released.pth', segmentation_weights())
    status, said = convert('released.pth', 'timm.pth', 'timm')
    assert status == 0, said
    assert 'timm has only the backbone: auxiliary_head, backbone, decode_head' in said
    model = LVViT(num_classes=0, final_norm=False, **TINY)
    model.load_state_dict(read_checkpoint('timm.pth'))


def test_the_bare_weights_of_a_timm_backbone_for_segmentation_are_those_of_timm(convert):
    inner = {f'backbone.model.{name}': x for name, x in deit(1).backbone.state_dict().items() if 'head' not in name}
    torch.save({'meta': {}, 'state_dict': inner | random_weights(head_shapes(24, 40, 8, 5))}, 'ours.pth')
    convert('ours.pth', 'timm.safetensors', 'timm')
    assert load_file('timm.safetensors').keys() == {name.removeprefix('backbone.model.') for name in inner}


@pytest.mark.parametrize(('options', 'kind', 'other', 'seed'), [((), 'EMA', 'raw', 2), (('--raw',), 'raw', 'EMA', 1)])
def test_ema_weights_are_taken_unless_raw_ones_are_requested(convert, options, kind, other, seed):
    torch.save(in_engine(lvvit(1), averaged=lvvit(2)), 'ours.pth')
    said = convert('ours.pth', 'timm.pth', 'timm', *options)[1]
    assert f'took the {kind} weights, left the {other} ones' in said
    assert_same(read_checkpoint('timm.pth'), lvvit(seed).state_dict())


def test_a_file_with_ema_weights_only_is_noted(convert):
    torch.save({'state_dict_ema': lvvit(1).state_dict()}, 'averaged.pth')
    said = convert('averaged.pth', 'timm.pth', 'timm', '--raw')[1]
    assert 'took the EMA weights, the only ones there are' in said
    assert_same(read_checkpoint('timm.pth'), lvvit(1).state_dict())


def test_ema_weights_of_a_segmentation_run_are_taken_too(convert):
    raw, averaged = segmentation_weights(), {name: x + 1 for name, x in segmentation_weights().items()}
    content = {'state_dict': averaged, 'ema_state_dict': {f'module.{name}': x for name, x in raw.items()}}
    torch.save(content, 'both.pth')
    convert('both.pth', 'ours.pth', 'ours')
    assert_same(read_checkpoint('ours.pth')['state_dict'], released_to_ours(averaged))
    convert('both.pth', 'ours.pth', 'ours', '--raw')
    assert_same(read_checkpoint('ours.pth')['state_dict'], released_to_ours(raw))


def test_ours_serves_as_the_start_of_a_segmentation_backbone(convert):
    torch.save(lvvit(1).state_dict(), 'timm.pth')
    convert('timm.pth', 'ours.pth', 'ours')
    backbone = MODELS.build(dict(type='LVViT', arch=None, out_indices=(0, 1), **TINY))
    load_backbone(backbone, 'ours.pth')
    assert torch.equal(backbone.pos_embed, lvvit(1).pos_embed)


def test_a_scoring_rule_that_has_no_place_is_named(convert):
    torch.save(in_engine(lvvit(1)), 'ours.pth')
    said = convert('ours.pth', 'timm.pth', 'timm')[1]
    assert 'dropped the scoring rule, which this layout does not store: token_score_weight=0' in said
    assert 'left out what is not a weight: message_hub, optimizer' in said


def test_half_precision_stays_half_precision(convert):
    save_file(lvvit(1).half().state_dict(), 'half.safetensors')
    convert('half.safetensors', 'ours.pth', 'ours')
    assert_same(state_dict_of(read_checkpoint('ours.pth')), lvvit(1).half().state_dict())


# With a config


def test_a_config_resamples_the_position_embedding_and_names_the_architecture(convert):
    sizes = ', '.join(f'{key}={value}' for key, value in (TINY | {'img_size': 64}).items())
    Path('config.py').write_text(CONFIG.format(network=f"model_name='lvvit_s', num_classes=5, {sizes}"))
    torch.save(lvvit(1).state_dict(), 'timm.pth')
    status, said = convert('timm.pth', 'ours.pth', 'ours', '--config', 'config.py')
    assert status == 0, said
    assert 'resampled pos_embed from [1, 17, 24] to [1, 65, 24]' in said
    assert read_checkpoint('ours.pth')['tokenlabel']['architecture'] == 'lvvit_s'
    expected = lvvit(1)
    expected.set_input_size(64)
    assert_same(state_dict_of(read_checkpoint('ours.pth')), expected.state_dict())


@pytest.mark.parametrize(
    ('network', 'complaint'),
    [
        ("model_name='lvvit_s', num_classes=7", 'head.weight of 5 classes'),
        ("model_name='lvvit_t', num_classes=5", 'contains weights of lvvit_s but config.py trains lvvit_t'),
    ],
)
def test_a_config_of_another_model_is_refused(convert, network, complaint):
    sizes = ', '.join(f'{key}={value}' for key, value in TINY.items())
    Path('config.py').write_text(CONFIG.format(network=f'{network}, {sizes}'))
    torch.save(in_engine(lvvit(1)), 'ours.pth')
    status, said = convert('ours.pth', 'timm.pth', 'timm', '--config', 'config.py')
    assert status == 2 and complaint in said
    assert not Path('timm.pth').exists()


# Refusals


def test_weights_that_are_nan_are_not_converted(convert):
    state = lvvit(1).state_dict()
    state['head.bias'][0] = float('nan')
    torch.save(state, 'c.pth')
    assert 'weights that are NaN or infinite (the first: head.bias)' in refusal(convert, 'c.pth', 'ours.pth', 'ours')


def test_notes_that_are_no_plain_values_stay_behind(convert):
    noted = {'architecture': None, 'other': torch.ones(2), 'path': Path('x')}
    torch.save({'state_dict': lvvit(1).state_dict(), 'tokenlabel': noted}, 'c.pth')
    status, said = convert('c.pth', 'ours.safetensors', 'safetensors')
    assert status == 0, said
    assert read_checkpoint('ours.safetensors')['tokenlabel'].keys() <= {
        'architecture',
        'num_classes',
        'token_score_weight',
    }


def refusal(convert, source: str, target: str, to: str, *options: str) -> str:
    """The one sentence that the tool ends with; nothing is written."""
    before = set(os.listdir())
    status, said = convert(source, target, to, *options)
    assert status == 2 and set(os.listdir()) == before
    return said


def test_a_target_of_another_format_is_refused(convert):
    torch.save(lvvit().state_dict(), 'timm.pth')
    assert 'does not end in .safetensors' in refusal(convert, 'timm.pth', 'bare.pth', 'safetensors')
    assert 'written by torch.save: end it in .pth' in refusal(convert, 'timm.pth', 'ours.safetensors', 'ours')
    assert 'timm.pth is the source itself' in refusal(convert, 'timm.pth', './timm.pth', 'ours')


def test_a_file_with_code_or_without_weights_is_refused(convert):
    torch.save({'state_dict': lvvit().state_dict(), 'model': np.load}, 'code.pth')
    assert 'could run code' in refusal(convert, 'code.pth', 'x.pth', 'timm')
    torch.save({'epoch': 3}, 'empty.pth')
    assert 'empty.pth holds no weights' in refusal(convert, 'empty.pth', 'x.pth', 'timm')


def test_a_segmentation_config_checks_names_and_resamples_to_its_crop(convert):
    write_released('released.pth', segmentation_weights())
    Path('config.py').write_text(SEGMENTATION.format(side=64))
    status, said = convert('released.pth', 'ours.pth', 'ours', '--config', 'config.py')
    assert status == 0, said
    assert 'resampled backbone.pos_embed from [1, 17, 24] to [1, 65, 24]' in said
    Path('config.py').write_text(SEGMENTATION.format(side=32).replace('num_classes=5', 'num_classes=6'))
    assert 'released.pth was trained for 5 classes and the config has 6' in refusal(
        convert, 'released.pth', 'other.pth', 'ours', '--config', 'config.py'
    )
