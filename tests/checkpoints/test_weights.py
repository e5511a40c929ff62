"""Reading weights: every layout, safely, fitted to the model or refused in one sentence."""

import argparse
import logging
import os
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tests.fixtures_io import load, load_json
from tokenlabel.errors import UserError
from tokenlabel.models import LVViT, load_checkpoint, read_checkpoint, state_dict_of

TINY = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2, 'num_classes': 5, 'stem_width': 8}


def tiny(seed: int = 0, **kwargs) -> LVViT:
    torch.manual_seed(seed)
    return timm.create_model('lvvit_t', **(TINY | kwargs)).eval()


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f'{prefix}{name}': value for name, value in state.items()}


def assert_same_weights(model: nn.Module, expected: nn.Module) -> None:
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


class RunsCode:
    def __reduce__(self):
        return os.system, ('echo run > code_ran',)


# Layouts


@pytest.mark.parametrize('key', [None, 'state_dict', 'state_dict_ema', 'model', 'model_ema'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('legacy', [False, True])
def test_reads_every_layout_of_a_released_file(tmp_path, key, prefix, legacy):
    source, path = tiny(1), tmp_path / 'weights.pth.tar'
    weights = prefixed(source.state_dict(), prefix)
    content = (
        weights if key is None else {key: weights, 'args': argparse.Namespace(lr=0.1), 'epoch': 3, 'arch': 'lvvit'}
    )
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    model = tiny()
    load_checkpoint(model, path)
    assert_same_weights(model, source)


def test_reads_safetensors(tmp_path):
    source, path = tiny(1), tmp_path / 'weights.safetensors'
    save_file(source.state_dict(), path)
    model = tiny()
    load_checkpoint(model, path)
    assert_same_weights(model, source)


@pytest.mark.parametrize(('raw', 'ema'), [('state_dict', 'state_dict_ema'), ('model', 'model_ema')])
def test_takes_ema_weights_on_request_only(tmp_path, raw, ema):
    trained, averaged = tiny(1), tiny(2)
    torch.save({raw: trained.state_dict(), ema: averaged.state_dict()}, tmp_path / 'both.pth')
    model = tiny()
    load_checkpoint(model, tmp_path / 'both.pth')
    assert_same_weights(model, trained)
    load_checkpoint(model, tmp_path / 'both.pth', ema=True)
    assert_same_weights(model, averaged)


def test_says_so_when_there_are_no_ema_weights(tmp_path, caplog):
    source = tiny(1)
    torch.save(source.state_dict(), tmp_path / 'raw.pth')
    model = tiny()
    load_checkpoint(model, tmp_path / 'raw.pth', ema=True)
    assert_same_weights(model, source)
    assert 'no EMA weights' in caplog.text


def test_mmengine_swaps_ema_and_raw_weights_on_saving():
    raw, averaged = tiny(1).state_dict(), tiny(2).state_dict()
    checkpoint = {
        'state_dict': prefixed(averaged, 'model.'),
        'ema_state_dict': {'steps': torch.tensor(7)} | prefixed(raw, 'module.model.'),
    }
    assert torch.equal(state_dict_of(checkpoint)['head.weight'], raw['head.weight'])
    assert torch.equal(state_dict_of(checkpoint, ema=True)['head.weight'], averaged['head.weight'])
    assert state_dict_of(checkpoint).keys() == raw.keys()


def test_reads_what_mmengine_puts_beside_the_weights(tmp_path):
    logging_of = pytest.importorskip('mmengine.logging')
    history = logging_of.HistoryBuffer([0.5, 0.25], [1, 1])
    hub = {'log_scalars': OrderedDict(loss=history), 'runtime_info': OrderedDict(iter=2), 'resumed_keys': {}}
    source = tiny(1)
    content = {'meta': {'iter': 2}, 'state_dict': prefixed(source.state_dict(), 'model.'), 'message_hub': hub}
    torch.save(content, tmp_path / 'iter_2.pth')
    model = tiny()
    load_checkpoint(model, tmp_path / 'iter_2.pth')
    assert_same_weights(model, source)


def test_configs_that_trainers_leave_beside_the_weights_are_read_as_dictionaries(tmp_path):
    config_of = pytest.importorskip('mmengine.config')
    config = config_of.ConfigDict(model=dict(type='EncoderDecoder'), lr=[0.1])
    torch.save(
        {'state_dict': tiny(1).state_dict(), 'config': config, 'work_dir': Path('runs')}, tmp_path / 'iter_2.pth'
    )
    read = read_checkpoint(tmp_path / 'iter_2.pth')['config']
    assert read == {'model': {'type': 'EncoderDecoder'}, 'lr': [0.1]}


def test_what_the_header_of_safetensors_keeps_comes_back_beside_the_weights(tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_file(tiny(1).state_dict(), path, {'format': 'pt', 'tokenlabel': '{"tokenlabel": {"token_score_weight": 0.0}}'})
    model = tiny()
    load_checkpoint(model, path)
    assert_same_weights(model, tiny(1))
    assert model.token_score_weight == 0


@pytest.mark.parametrize('wrap', [nn.DataParallel, torch.compile, lambda model: nn.ModuleDict({'model': model})])
def test_loads_into_the_model_inside_a_wrapper(tmp_path, wrap):
    source, model = tiny(1), tiny()
    torch.save(source.state_dict(), tmp_path / 'weights.pth')
    load_checkpoint(wrap(model), tmp_path / 'weights.pth')
    assert_same_weights(model, source)


def test_loads_any_model_of_timm(tmp_path):
    source = timm.create_model('test_resnet', num_classes=4)
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'annotator.pth')
    model = timm.create_model('test_resnet', num_classes=4)
    load_checkpoint(model, tmp_path / 'annotator.pth')
    assert_same_weights(model, source)


# Fitting


def test_the_scoring_rule_travels_with_the_weights(tmp_path):
    source = tiny(1)
    ours = {'architecture': 'lvvit_t', 'num_classes': 5, 'token_score_weight': 0.0}
    torch.save({'state_dict': source.state_dict(), 'tokenlabel': ours}, tmp_path / 'ours.pth')
    model = tiny()
    load_checkpoint(model, tmp_path / 'ours.pth')
    assert model.token_score_weight == 0


def test_position_embedding_is_resampled_as_released(tmp_path):
    fixture = load('pos_embed')
    source = tiny(img_size=14 * 8)
    source.pos_embed = nn.Parameter(fixture['from_14x14'])
    torch.save(source.state_dict(), tmp_path / 'small.pth')
    model = tiny(img_size=24 * 8)
    load_checkpoint(model, tmp_path / 'small.pth')
    expected = fixture['to_24x24']
    assert (model.pos_embed - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_position_embedding_fits_a_grid_that_is_not_square(tmp_path):
    torch.save(tiny(1).state_dict(), tmp_path / 'square.pth')
    model, expected = tiny(img_size=(48, 64)), tiny(1)
    load_checkpoint(model, tmp_path / 'square.pth')
    expected.set_input_size((48, 64))
    assert_same_weights(model, expected)


def test_a_stored_grid_of_unknown_shape_cannot_be_resampled(tmp_path):
    torch.save(tiny(1, img_size=(48, 64)).state_dict(), tmp_path / 'wide.pth')
    with pytest.raises(UserError, match=r'wide\.pth has a position embedding of 48 tokens'):
        load_checkpoint(tiny(), tmp_path / 'wide.pth')


def test_other_classes_leave_both_heads_alone_and_say_so(tmp_path, caplog):
    source, model, before = tiny(1, num_classes=7), tiny(), tiny()
    torch.save(source.state_dict(), tmp_path / 'seven.pth')
    load_checkpoint(model, tmp_path / 'seven.pth')
    for head in ('head', 'aux_head'):
        assert_same_weights(model.get_submodule(head), before.get_submodule(head))
    assert_same_weights(model.blocks, source.blocks)
    assert 'seven.pth has other classes than the model: aux_head and head not loaded' in caplog.text


def test_a_model_without_classes_takes_the_trunk(tmp_path, caplog):
    source, model = tiny(1), tiny(num_classes=0)
    torch.save(source.state_dict(), tmp_path / 'five.pth')
    load_checkpoint(model, tmp_path / 'five.pth')
    assert_same_weights(model.blocks, source.blocks)
    assert 'head not loaded' in caplog.text


def test_other_classes_of_an_annotator_are_found_by_its_own_classifier(tmp_path, caplog):
    source = timm.create_model('test_resnet', num_classes=4)
    torch.save(source.state_dict(), tmp_path / 'four.pth')
    model = timm.create_model('test_resnet', num_classes=6)
    load_checkpoint(model, tmp_path / 'four.pth')
    assert_same_weights(model.layer1, source.layer1)
    assert 'fc not loaded' in caplog.text


def test_everything_that_does_not_match_is_said_in_one_error(tmp_path):
    state = tiny(1).state_dict()
    del state['norm.weight']
    state['extra'] = torch.zeros(1)
    state['cls_token'] = torch.zeros(1, 1, 7)
    torch.save(state, tmp_path / 'odd.pth')
    model, before = tiny(), tiny()
    with pytest.raises(UserError) as error:
        load_checkpoint(model, tmp_path / 'odd.pth')
    for part in (
        'odd.pth does not fit lvvit_t',
        '1 missing (norm.weight)',
        '1 unexpected (extra)',
        '1 of another shape (cls_token [1, 1, 7] instead of [1, 1, 24])',
        'strict=False',
    ):
        assert part in str(error.value)
    assert_same_weights(model, before)


def test_without_strictness_what_fits_is_loaded_and_the_rest_is_said(tmp_path, caplog):
    source = tiny(1)
    state = source.state_dict()
    del state['norm.weight']
    torch.save(state, tmp_path / 'part.pth')
    model = tiny()
    load_checkpoint(model, tmp_path / 'part.pth', strict=False)
    assert_same_weights(model.blocks, source.blocks)
    assert '1 missing (norm.weight)' in caplog.text


@pytest.mark.parametrize('strict', [True, False])
def test_weights_of_another_architecture_are_refused_in_one_sentence(tmp_path, strict):
    torch.save(timm.create_model('test_resnet').state_dict(), tmp_path / 'resnet.pth')
    with pytest.raises(UserError, match=r'resnet\.pth does not fit lvvit_t \(0 of \d+ tensors do\)') as error:
        load_checkpoint(tiny(), tmp_path / 'resnet.pth', strict=strict)
    assert '\n' not in str(error.value) and len(str(error.value)) < 600


def test_a_file_that_names_another_architecture_is_refused_by_name(tmp_path):
    ours = {'architecture': 'lvvit_s', 'num_classes': 5, 'token_score_weight': 0.5}
    torch.save({'state_dict': tiny(1).state_dict(), 'tokenlabel': ours}, tmp_path / 's.pth')
    with pytest.raises(UserError, match=r's\.pth holds weights of lvvit_s and the model is lvvit_t'):
        load_checkpoint(tiny(), tmp_path / 's.pth')


# Bad files


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / 'none.pth'))):
        read_checkpoint(tmp_path / 'none.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    path = tmp_path / f'cut{suffix}'
    save = save_file if suffix == '.safetensors' else torch.save
    save(tiny().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r'cut\.\w+ is truncated or not a checkpoint'):
        read_checkpoint(path)


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_of_the_old_format_is_refused(tmp_path, share):
    path = tmp_path / 'cut.pth.tar'
    torch.save(tiny().state_dict(), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r'cut\.pth\.tar is truncated'):
        read_checkpoint(path)


@pytest.mark.parametrize(
    'content', ['<html>not found</html>', 'hello world\n' * 9, 'version https://git-lfs.github.com']
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / 'page.pth').write_text(content)
    with pytest.raises(UserError, match=r'page\.pth is truncated or not a checkpoint'):
        read_checkpoint(tmp_path / 'page.pth')


@pytest.mark.parametrize('legacy', [False, True])
def test_a_pickle_with_code_is_refused_with_its_reason_and_does_not_run(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    content = {'state_dict': tiny().state_dict(), 'more': RunsCode()}
    torch.save(content, 'evil.pth', _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        UserError, match=r'evil\.pth is refused because reading it could run code \(it pickles \w+\.system\)'
    ):
        load_checkpoint(tiny(), 'evil.pth')
    assert not Path('code_ran').exists()


def test_a_pickled_model_is_refused(tmp_path):
    torch.save(tiny(), tmp_path / 'model.pth')
    with pytest.raises(UserError, match=r'it pickles tokenlabel\.models\.lvvit\.LVViT.*state_dict'):
        read_checkpoint(tmp_path / 'model.pth')


def test_reading_a_checkpoint_leaves_the_allowed_names_of_torch_alone(tmp_path):
    torch.save({'args': argparse.Namespace(), 'weight': torch.zeros(1)}, tmp_path / 'weights.pth')
    with torch.serialization.safe_globals([argparse.Namespace]):
        before = set(torch.serialization.get_safe_globals())
        read_checkpoint(tmp_path / 'weights.pth')
        assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize('content', [{'epoch': 3}, {'state_dict': {}}])
def test_a_file_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / 'empty.pth')
    with pytest.raises(UserError, match=r'empty\.pth holds no weights'):
        load_checkpoint(tiny(), tmp_path / 'empty.pth')


# timm's own loading of a file laid out as the release


def released_file(path: Path, **content) -> dict[str, torch.Tensor]:
    """Writes random weights under the names and shapes of the released LV-ViT-T."""
    (shapes,) = (value for value in load_json('released_models')['lvvit_t@224'].values() if isinstance(value, dict))
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.zeros(shape, dtype=torch.int64) if not shape else torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }
    torch.save({'state_dict': prefixed(state, 'module.'), 'args': argparse.Namespace(model='lvvit'), **content}, path)
    return state


@pytest.mark.parametrize('custom_load', [False, True])
def test_timm_loads_a_file_laid_out_as_the_release(tmp_path, custom_load):
    state = released_file(tmp_path / 'lvvit_t.pth')
    overlay = {'file': str(tmp_path / 'lvvit_t.pth'), 'custom_load': custom_load}
    model = timm.create_model('lvvit_t', pretrained=True, pretrained_cfg_overlay=overlay)
    assert {name: value for name, value in model.state_dict().items() if not torch.equal(value, state[name])} == {}


@pytest.mark.parametrize('custom_load', [False, True])
def test_timm_loads_it_at_another_size_and_for_other_classes(tmp_path, custom_load):
    state = released_file(tmp_path / 'lvvit_t.pth')
    overlay = {'file': str(tmp_path / 'lvvit_t.pth'), 'custom_load': custom_load}
    options = {'num_classes': 3, 'img_size': 96, 'in_chans': 1, 'pretrained_cfg_overlay': overlay}
    model = timm.create_model('lvvit_t', pretrained=True, **options)
    assert torch.equal(model.blocks[0].mlp.fc1.weight, state['blocks.0.mlp.fc1.weight'])
    assert model.pos_embed.shape == (1, 37, 240)
    assert (model.head.out_features, model.aux_head.out_features) == (3, 3)
    stem = state['patch_embed.conv1.weight'].sum(1, keepdim=True)
    torch.testing.assert_close(model.patch_embed.conv1.weight.detach(), stem)


def test_timm_loads_it_for_features_only(tmp_path):
    state = released_file(tmp_path / 'lvvit_t.pth')
    overlay = {'file': str(tmp_path / 'lvvit_t.pth')}
    model = timm.create_model('lvvit_t', pretrained=True, features_only=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(model.model.blocks[0].mlp.fc1.weight, state['blocks.0.mlp.fc1.weight'])


def test_timm_takes_the_ema_weights_of_a_released_file(tmp_path):
    path = tmp_path / 'lvvit_t.pth'
    state = released_file(path)
    averaged = {name: value + 1 for name, value in state.items()}
    torch.save({'state_dict': state, 'state_dict_ema': averaged}, path)
    model = tiny(embed_dim=240, depth=12, num_heads=4, stem_width=64, num_classes=1000, patch_size=16, img_size=224)
    model.load_pretrained(path)
    assert torch.equal(model.head.bias, averaged['head.bias'])


def test_informs_about_a_resampled_position_embedding(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    torch.save(tiny(1).state_dict(), tmp_path / 'small.pth')
    load_checkpoint(tiny(img_size=64), tmp_path / 'small.pth')
    assert 'position embedding resampled from 4x4 to 8x8' in caplog.text
