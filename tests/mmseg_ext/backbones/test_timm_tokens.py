"""Backbones of timm: maps of any input, every parameter at work, each family by the same rules."""

import functools

import pytest
import timm
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

import mmseg_ext  # noqa: F401  (registers the names)
import tokenlabel.models  # noqa: F401  (registers MLP-Mixer)
from tokenlabel.errors import UserError

# Small models of each kind: plain transformers, pyramids of windows, of convolutions and of both.
FAMILIES = {
    'deit': dict(model_name='deit3_small_patch16_224', embed_dim=32, depth=4, num_heads=2),
    'eva': dict(model_name='eva02_tiny_patch14_224', patch_size=16, embed_dim=32, depth=4, num_heads=2),
    'swin': dict(model_name='swin_tiny_patch4_window7_224', embed_dim=16, depths=(2, 1, 1, 1), window_size=4),
    'convnext': dict(model_name='convnext_atto', dims=(8, 16, 24, 32), depths=(1, 1, 1, 1)),
    'resnet': dict(model_name='resnet18', channels=(8, 16, 24, 32)),
    'maxvit': dict(model_name='maxvit_pico_rw_256', embed_dim=(32, 32, 32, 32), depths=(1, 1, 1, 1), stem_width=8),
    'lvvit': dict(model_name='lvvit_t', embed_dim=32, depth=4, num_heads=2, stem_width=8),
}
FIXED = {
    'cait': dict(model_name='cait_xxs24_224', embed_dim=32, depth=4, num_heads=2),
    'mixer': dict(model_name='mlp_mixer', embed_dim=32, num_blocks=4),
    'beit': dict(model_name='beit_base_patch16_224', embed_dim=32, depth=4, num_heads=2),
    'hiera': dict(model_name='hiera_tiny_224', embed_dim=16, stages=(1, 1, 1, 1)),
}
ALL = FAMILIES | FIXED
DEIT = dict(model_name='deit_small_patch16_224', embed_dim=32, depth=8, num_heads=2, img_size=64)


def build(family: str = 'deit', **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS.build({'type': 'TimmTokens', 'img_size': 64 if family != 'hiera' else 224, **ALL[family], **changes})


@functools.cache
def untrained(family: str) -> torch.nn.Module:
    """For tests that leave the model as it is."""
    return build(family).eval()


def twin(family: str, **changes) -> torch.nn.Module:
    """The same architecture as timm makes it."""
    size = {} if family == 'convnext' else dict(img_size=64)
    return timm.create_model(**ALL[family] | size | changes, num_classes=0)


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def gradients(backbone: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor | None]:
    torch.manual_seed(1)
    sum(y.square().mean() for y in backbone(x)).backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}


@pytest.mark.parametrize('family', FAMILIES)
def test_the_maps_cover_an_input_of_any_size(family):
    backbone = untrained(family)
    for size in [(64, 64), (32, 96), (33, 71), (1, 7)]:
        with torch.no_grad():
            maps = backbone(images(1, 3, *size))
        expected = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in backbone.strides]
        assert [tuple(x.shape[2:]) for x in maps] == expected
        assert tuple(x.shape[1] for x in maps) == backbone.channels


@pytest.mark.parametrize('family', ALL)
def test_a_plain_backbone_has_one_stride_and_a_pyramid_four(family):
    pyramid = family in ('swin', 'convnext', 'resnet', 'maxvit', 'hiera')
    assert untrained(family).strides == ((4, 8, 16, 32) if pyramid else (16, 16, 16, 16))


@pytest.mark.parametrize('family', FIXED)
def test_an_architecture_of_fixed_size_pads_up_to_it_and_refuses_larger_inputs(family):
    backbone = untrained(family)
    own = backbone.img_size[0]
    x = images(1, 3, own - 24, own - 3)
    with torch.no_grad():
        small, padded = backbone(x)[-1], backbone(F.pad(x, (0, 3, 0, 24)))[-1]
    torch.testing.assert_close(small, padded[..., : small.shape[-2], : small.shape[-1]])
    with pytest.raises(UserError, match="mode='slide'"):
        backbone(images(1, 3, own + 16, own))


@pytest.mark.parametrize('family', ['deit', 'eva', 'swin', 'convnext', 'cait'])
def test_maps_are_those_of_timm(family):
    backbone, whole = untrained(family), twin(family).eval()
    whole.load_state_dict(backbone.model.state_dict(), strict=False)
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_intermediates(x, indices=list(backbone.out_indices), intermediates_only=True)
        torch.testing.assert_close(list(backbone(x)), expected)


def test_windows_of_another_input_are_those_of_a_model_made_for_it():
    backbone, whole = build('swin', img_size=128).eval(), twin('swin', img_size=(128, 160)).eval()
    whole.load_state_dict(backbone.model.state_dict(), strict=False)
    x = images(2, 3, 128, 160)
    with torch.no_grad():
        expected = whole.forward_intermediates(x, indices=[0, 1, 2], intermediates_only=True)
        torch.testing.assert_close(list(backbone(x))[:3], expected)


@pytest.mark.parametrize('family', [name for name in ALL if name not in ('hiera', 'lvvit')])
def test_every_trainable_parameter_receives_a_gradient(family):
    backbone = build(family).train()
    grads = gradients(backbone, images(2, 3, *backbone.img_size))
    assert [name for name, grad in grads.items() if grad is None] == []
    assert [name for name, x in backbone.named_parameters() if not x.requires_grad] == []


def test_blocks_after_the_last_index_and_the_head_are_left_out():
    backbone = MODELS.build(dict(type='TimmTokens', **DEIT, out_indices=(1, 4)))
    assert len(backbone.model.blocks) == 5
    assert not any(name.startswith(('model.norm', 'model.head')) for name in backbone.state_dict())


@pytest.mark.parametrize(('depth', 'indices'), [(8, (1, 3, 5, 7)), (6, (0, 2, 3, 5)), (2, (0, 1))])
def test_blocks_at_even_distances_are_taken_by_default(depth, indices):
    assert MODELS.build(dict(type='TimmTokens', **DEIT | dict(depth=depth))).out_indices == indices


@pytest.mark.parametrize('family', ['deit', 'eva', 'swin', 'convnext'])
def test_gradient_checkpointing_recomputes_and_changes_no_gradient(family, monkeypatch):
    calls = []
    original = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', lambda *a, **k: calls.append(1) or original(*a, **k))
    plain, saving = build(family).train(), build(family, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    x = images(2, 3, *plain.img_size)
    expected, actual = gradients(plain, x), gradients(saving, x)
    assert calls
    for name, grad in expected.items():
        torch.testing.assert_close(actual[name], grad, msg=name)


@pytest.mark.parametrize(
    ('family', 'first', 'second'),
    [
        ('deit', 'model.blocks.0.', 'model.blocks.1.'),
        ('swin', 'model.layers.0.', 'model.layers.1.'),
        ('resnet', 'model.layer1.', 'model.layer2.'),
    ],
)
def test_frozen_stages_keep_weights_and_statistics_through_a_step(family, first, second):
    backbone = build(family, frozen_stages=1, drop_path_rate=0.1).train()
    frozen = {name for name, x in backbone.named_parameters() if not x.requires_grad}
    assert any(name.startswith(first) for name in frozen)
    before = {name: x.clone() for name, x in backbone.state_dict().items()}
    gradients(backbone, images(2, 3, 64, 64))
    torch.optim.SGD(backbone.parameters(), lr=1.0).step()
    changed = {name for name, x in backbone.state_dict().items() if not torch.equal(x, before[name])}
    assert not changed & frozen
    assert not any(name.startswith(('model.bn1', 'model.stem', first)) for name in changed)
    assert any(name.startswith(second) for name in changed)


def test_frozen_stem_and_gradient_checkpointing_train_the_first_block():
    backbone = build(frozen_stages=0, with_cp=True).train()
    grads = gradients(backbone, images(2, 3, 64, 64))
    assert grads['model.blocks.0.attn.qkv.weight'].abs().sum() > 0


@pytest.mark.parametrize('family', ['deit', 'convnext'])
def test_stochastic_depth_is_active_in_training_only(family):
    backbone = build(family, drop_path_rate=0.9)
    x = images(4, 3, 64, 64)
    with torch.no_grad():
        backbone.eval()
        torch.testing.assert_close(backbone(x)[-1], backbone(x)[-1], rtol=0, atol=0)
        backbone.train()
        assert not torch.equal(backbone(x)[-1], backbone(x)[-1])


def test_levels_are_normalised_on_request():
    backbone = build('swin', out_norm=True)
    maps = backbone(images(2, 3, 64, 64))
    torch.testing.assert_close(torch.stack([x.mean(1).abs().max() for x in maps]), torch.zeros(4), atol=1e-5, rtol=0)


def test_images_of_other_channels():
    assert build('deit', in_chans=1)(images(1, 1, 64, 64))[0].shape == (1, 32, 4, 4)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(model_name='deit_huge'), 'no model'),
        (dict(out_indices=(1, 8)), '0 to 7'),
        (dict(frozen_stages=9), 'frozen_stages'),
        (dict(img_size=60), 'multiple of 16'),
        (dict(blocks=3), 'blocks'),
        (dict(pretrained=True, init_cfg=dict(type='Pretrained', checkpoint='a.pth')), 'both'),
        (dict(pretrained='missing.pth'), 'missing.pth'),
    ],
)
def test_arguments_that_cannot_be_met_are_refused_in_one_sentence(changes, message):
    with pytest.raises(UserError, match=message) as refusal:
        MODELS.build({'type': 'TimmTokens', **DEIT, **changes}).init_weights()
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(model_name='inception_v3', img_size=320), 'padding'),
        (dict(model_name='vgg11', img_size=64, with_cp=True), 'with_cp=False'),
        (dict(model_name='poolformer_s12', img_size=64, frozen_stages=0), 'frozen_stages=-1'),
    ],
)
def test_what_an_architecture_cannot_do_is_said(arguments, message):
    with torch.device('meta'), pytest.raises(UserError, match=message):
        MODELS.build(dict(type='TimmTokens', **arguments))
