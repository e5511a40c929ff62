"""The segmentation backbone: the released maps, any input size, nothing left untrained."""

import pytest
import timm
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

import mmseg_ext  # noqa: F401  (registers the names)
from tests.fixtures_io import below, cases, load
from tokenlabel.errors import UserError

TINY = dict(arch=None, embed_dim=32, depth=3, num_heads=4, img_size=64, out_indices=(0, 1, 2), residual_divisor=2.0)


def build(**changes) -> torch.nn.Module:
    return MODELS.build({'type': 'LVViT', **TINY, **changes})


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('shape', ['square', 'wide'])
def test_backbone_and_pyramid_agree_with_the_released_model(shape):
    case = cases()['segmentation_backbone']
    fixture = load('segmentation_backbone')
    state = below(fixture, 'state.')
    backbone = build(
        img_size=case['img_size'],
        embed_dim=case['embed_dim'],
        depth=case['depth'],
        num_heads=case['num_heads'],
        stem_width=case['stem_dim'],
        residual_divisor=case['skip_lam'],
        out_indices=case['out_indices'],
    )
    neck = MODELS.build(
        dict(
            type='TokenPyramid',
            in_channels=case['embed_dim'],
            out_channels=case['out_channels'],
            norm_cfg=dict(type='BN'),
        )
    )
    backbone.load_state_dict({name: x for name, x in state.items() if 'side_layer' not in name})
    neck.load_state_dict({name: x for name, x in state.items() if 'side_layer' in name})

    with torch.no_grad():
        levels = neck.eval()(backbone.eval()(fixture[f'{shape}.input']))

    for i, level in enumerate(levels):
        expected = fixture[f'{shape}.level{i}']
        torch.testing.assert_close(level, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize('arch', ['lvvit_t', 'lvvit_s', 'lvvit_m', 'lvvit_l'])
def test_an_arch_is_the_timm_model_of_that_name_without_norm_and_heads(arch):
    with torch.device('meta'):
        backbone = MODELS.build(dict(type='LVViT', arch=arch, img_size=224, out_indices=(11,)))
        classifier = timm.create_model(arch, img_size=224)
    backbone_shapes = {name: x.shape for name, x in backbone.state_dict().items()}
    unused = ('norm.', 'head.', 'aux_head.', *(f'blocks.{i}.' for i in range(12, len(classifier.blocks))))
    expected = {name: x.shape for name, x in classifier.state_dict().items() if not name.startswith(unused)}
    assert backbone_shapes == expected
    assert repr(backbone.blocks[0].ls1) == repr(classifier.blocks[0].ls1)


def test_sizes_override_what_the_arch_states():
    with torch.device('meta'):
        backbone = MODELS.build(dict(type='LVViT', arch='lvvit_l', residual_divisor=1.0, out_indices=(0,)))
    assert isinstance(backbone.blocks[0].ls1, torch.nn.Identity)


def test_an_input_that_the_patch_does_not_divide_is_padded_at_right_and_bottom():
    backbone = build().eval()
    x = images(1, 3, 40, 70)
    with torch.no_grad():
        maps, padded = backbone(x), backbone(F.pad(x, (0, 10, 0, 8)))
    assert maps[-1].shape == (1, 32, 3, 5)
    torch.testing.assert_close(maps, padded)


def test_patches_of_8_pixels_give_maps_at_stride_8():
    assert build(patch_size=8)(images(2, 3, 64, 48))[0].shape == (2, 32, 8, 6)


def test_every_parameter_receives_a_gradient():
    backbone = build(out_indices=(0, 1))
    sum(x.square().mean() for x in backbone(images(2, 3, 32, 32))).backward()
    assert [name for name, x in backbone.named_parameters() if x.grad is None] == []


def test_gradient_checkpointing_changes_no_gradient():
    plain, saving = build(), build(with_cp=True)
    saving.load_state_dict(plain.state_dict())
    for backbone in (plain, saving):
        sum(x.square().mean() for x in backbone(images(2, 3, 32, 32))).backward()
    for expected, actual in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)


def test_frozen_stages_keep_their_weights_and_statistics():
    backbone = build(frozen_stages=1).train()
    trained = {
        name.split('.')[0] + '.' + name.split('.')[1] for name, x in backbone.named_parameters() if x.requires_grad
    }
    assert trained == {'blocks.1', 'blocks.2'}
    before = backbone.patch_embed.bn1.running_mean.clone()
    backbone(images(2, 3, 32, 32))
    assert torch.equal(backbone.patch_embed.bn1.running_mean, before)


def test_stochastic_depth_grows_to_the_given_rate():
    assert build(drop_path_rate=0.2).blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)


def test_weights_trained_at_another_crop_load():
    large, small = build(img_size=96), build(img_size=64)
    small.load_state_dict(large.state_dict())
    assert torch.equal(small.pos_embed[:, 0], large.pos_embed[:, 0])


def test_init_weights_without_init_cfg_keeps_the_weights_of_construction():
    backbone = build()
    before = backbone.pos_embed.clone()
    backbone.init_weights()
    assert torch.equal(backbone.pos_embed, before)
    assert backbone.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(arch='lvvit_x'), 'no arch'),
        (dict(out_indices=(1, 3)), '0 to 2'),
        (dict(out_indices=(2, 1)), 'ascend'),
        (dict(frozen_stages=4), 'frozen_stages'),
        (dict(pretrained='a.pth', init_cfg=dict(type='Pretrained', checkpoint='a.pth')), 'both'),
        (dict(img_size=60), 'does not divide'),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)
