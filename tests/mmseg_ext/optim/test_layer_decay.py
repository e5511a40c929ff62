"""Layer-wise learning rates: each parameter's rate and decay, and what a config may say of them."""

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from timm.optim import param_groups_layer_decay
from torch import nn

import mmseg_ext  # noqa: F401  (registers the names)
from tokenlabel.errors import UserError

LR, WEIGHT_DECAY, LAYER_DECAY = 1e-3, 0.05, 0.5
LVVIT = dict(type='LVViT', arch=None, embed_dim=32, depth=3, num_heads=2, stem_width=8, img_size=64, out_indices=(0, 2))
BACKBONES = {
    'lvvit': LVVIT,
    'deit': dict(
        type='TimmTokens',
        model_name='deit_small_distilled_patch16_224',
        embed_dim=32,
        depth=3,
        num_heads=2,
        img_size=64,
    ),
    'registers': dict(
        type='TimmTokens',
        model_name='vit_small_patch14_reg4_dinov2',
        embed_dim=28,
        depth=3,
        num_heads=2,
        img_size=56,
    ),
    'swin': dict(
        type='TimmTokens',
        model_name='swin_tiny_patch4_window7_224',
        embed_dim=12,
        depths=(1, 1, 2, 1),
        window_size=2,
        img_size=64,
        out_norm=True,
    ),
    'resnet': dict(type='TimmTokens', model_name='resnet10t', img_size=64),
}


class Segmentor(nn.Module):
    def __init__(self, backbone: str = 'lvvit', **changes) -> None:
        super().__init__()
        self.backbone = MODELS.build(BACKBONES[backbone] | changes)
        self.neck = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.decode_head = nn.Conv2d(4, 2, 1)


def build(model: nn.Module, optimizer: dict | None = None, **paramwise) -> OptimWrapper:
    init_default_scope('mmseg')
    return build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=optimizer or dict(type='AdamW', lr=LR, weight_decay=WEIGHT_DECAY),
            constructor='TimmLayerDecay',
            paramwise_cfg=paramwise,
        ),
    )


def settings(model: nn.Module, wrapper: OptimWrapper) -> dict[str, tuple[float, float]]:
    """Rate and decay by name of what is trained; every parameter is in one group only."""
    groups = wrapper.optimizer.param_groups
    found = {id(x): (group['lr'], group['weight_decay']) for group in groups for x in group['params']}
    assert len(found) == sum(len(group['params']) for group in groups)
    return {name: found[id(x)] for name, x in model.named_parameters() if id(x) in found}


def test_a_transformer_has_a_rate_per_block_and_no_decay_on_tokens_norms_and_biases():
    model = Segmentor()
    found = settings(model, build(model, layer_decay=LAYER_DECAY))
    assert set(found) == dict(model.named_parameters()).keys()
    stem, block = LR * LAYER_DECAY**3, LR * LAYER_DECAY**2
    assert found['backbone.patch_embed.conv1.weight'] == pytest.approx((stem, WEIGHT_DECAY))
    assert found['backbone.patch_embed.bn1.weight'] == pytest.approx((stem, 0))
    assert found['backbone.pos_embed'] == found['backbone.cls_token'] == pytest.approx((stem, 0))
    assert found['backbone.blocks.0.attn.qkv.weight'] == pytest.approx((block, WEIGHT_DECAY))
    assert found['backbone.blocks.0.attn.proj.bias'] == found['backbone.blocks.0.norm1.weight']
    assert found['backbone.blocks.0.norm1.weight'] == pytest.approx((block, 0))
    assert found['backbone.blocks.1.mlp.fc1.weight'] == pytest.approx((LR * LAYER_DECAY, WEIGHT_DECAY))
    assert found['backbone.blocks.2.mlp.fc1.weight'] == (LR, WEIGHT_DECAY)
    assert found['neck.0.weight'] == found['decode_head.weight'] == (LR, WEIGHT_DECAY)
    assert found['neck.0.bias'] == found['neck.1.weight'] == found['decode_head.bias'] == (LR, 0)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_the_backbone_is_grouped_as_timm_groups_it(backbone):
    model = Segmentor(backbone)
    found = settings(model, build(model, layer_decay=LAYER_DECAY))
    groups = param_groups_layer_decay(
        model.backbone,
        weight_decay=WEIGHT_DECAY,
        no_weight_decay_list=model.backbone.no_weight_decay(),
        layer_decay=LAYER_DECAY,
    )
    expected = {id(x): (LR * group['lr_scale'], group['weight_decay']) for group in groups for x in group['params']}
    for name, parameter in model.backbone.named_parameters():
        assert found[f'backbone.{name}'] == pytest.approx(expected[id(parameter)]), name


@pytest.mark.parametrize(
    ('backbone', 'names'),
    [
        ('deit', ['cls_token', 'dist_token', 'pos_embed']),
        ('registers', ['cls_token', 'reg_token', 'pos_embed']),
        ('swin', ['layers.0.blocks.0.attn.relative_position_bias_table']),
    ],
)
def test_tokens_positions_and_bias_tables_are_not_decayed(backbone, names):
    model = Segmentor(backbone)
    found = settings(model, build(model, layer_decay=LAYER_DECAY))
    assert [found[f'backbone.model.{name}'][1] for name in names] == [0] * len(names)


def test_what_is_frozen_is_left_out():
    model = Segmentor(frozen_stages=1)
    found = settings(model, build(model, layer_decay=LAYER_DECAY))
    assert set(found) == {name for name, x in model.named_parameters() if x.requires_grad}
    assert not any(name.startswith(('backbone.patch_embed', 'backbone.blocks.0')) for name in found)
    assert found['backbone.blocks.1.mlp.fc1.weight'] == pytest.approx((LR * LAYER_DECAY, WEIGHT_DECAY))


def test_custom_keys_multiply_the_rate_of_the_layer_and_the_decay():
    model = Segmentor()
    keys = dict(backbone=dict(lr_mult=0.1), decode_head=dict(lr_mult=10, decay_mult=0.5))
    keys['backbone.blocks.1'] = dict(decay_mult=0.0)
    found = settings(model, build(model, layer_decay=LAYER_DECAY, custom_keys=keys))
    assert found['backbone.blocks.0.mlp.fc1.weight'] == pytest.approx((LR * 0.1 * LAYER_DECAY**2, WEIGHT_DECAY))
    assert found['backbone.blocks.1.mlp.fc1.weight'] == pytest.approx((LR * LAYER_DECAY, 0))
    assert found['decode_head.weight'] == pytest.approx((10 * LR, WEIGHT_DECAY / 2))


def test_what_the_schedules_say_of_norms_and_biases_is_the_rule_already():
    model = Segmentor()
    keys = dict(pos_embed=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0))
    found = settings(
        model, build(model, layer_decay=LAYER_DECAY, norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=keys)
    )
    assert found == settings(model, build(model, layer_decay=LAYER_DECAY))


def test_a_step_is_taken_at_each_rate():
    model = Segmentor()
    wrapper = build(model, optimizer=dict(type='SGD', lr=LR, weight_decay=0.0), layer_decay=LAYER_DECAY)
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    for x in model.parameters():
        x.grad = torch.ones_like(x)
    wrapper.step()
    for name, (lr, _) in settings(model, wrapper).items():
        torch.testing.assert_close(model.get_parameter(name), before[name] - lr, msg=name)


@pytest.mark.parametrize(
    ('paramwise', 'message'),
    [
        (dict(custom_keys={}), 'layer_decay is None'),
        (dict(layer_decay=1.5), 'above 0 and up to 1'),
        (dict(layer_decay=0.9, num_layers=12), 'num_layers'),
        (dict(layer_decay=0.9, norm_decay_mult=0.5), 'norm_decay_mult'),
        (dict(layer_decay=0.9, custom_keys=dict(neck=dict(momentum=0.5))), 'momentum'),
    ],
)
def test_other_settings_are_refused(paramwise, message):
    with pytest.raises(UserError, match=message):
        build(Segmentor(), **paramwise)


def test_an_optimiser_without_weight_decay_is_refused():
    with pytest.raises(UserError, match='weight_decay: state both'):
        build(Segmentor(), optimizer=dict(type='AdamW', lr=LR), layer_decay=0.9)


def test_a_backbone_without_layers_is_refused():
    model = Segmentor()
    model.backbone = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match='Conv2d does not number its layers'):
        build(model, layer_decay=0.9)


def test_an_architecture_that_timm_does_not_number_is_refused():
    with torch.device('meta'):
        model = Segmentor('resnet', model_name='poolformer_s12')
    with pytest.raises(UserError, match='does not number the layers of poolformer_s12'):
        build(model, layer_decay=0.9)
