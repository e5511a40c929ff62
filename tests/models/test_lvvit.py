"""LV-ViT: agreement with the 2021 release, MixToken, scoring, and what timm expects of a vision transformer."""

import copy

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from tests.fixtures_io import below, cases, load, load_json
from tokenlabel.checkpoints.weights import resample_pos_embed
from tokenlabel.errors import UserError
from tokenlabel.models import LVViT, TokenLogits, class_scores
from tokenlabel.models.lvvit import ConvStem

TINY = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2, 'num_classes': 5, 'stem_width': 8}
RELEASED_CASES = ['lvvit_stem64_skip1', 'lvvit_stem64_skip2', 'lvvit_stem128_skip3']
BOX = torch.tensor([1, 0, 3, 2])


def tiny(seed: int = 0, **kwargs) -> LVViT:
    torch.manual_seed(seed)
    return LVViT(**(TINY | kwargs))


def images(batch: int = 2, height: int = 32, width: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def released(name: str, **kwargs) -> tuple[LVViT, dict[str, torch.Tensor]]:
    """The model of a fixture with its weights, and the fixture."""
    arguments = dict(cases()[name])
    stem = {'4_2': 64, '4_2_128': 128}[arguments.pop('p_emb')]
    model = LVViT(stem_width=stem, residual_divisor=arguments.pop('skip_lam'), **arguments, **kwargs)
    fixture = load(name)
    model.load_state_dict(below(fixture, 'state.'))
    return model, fixture


def assert_agree(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


# Agreement with the release


@pytest.mark.parametrize('name', RELEASED_CASES)
def test_evaluation_agrees_with_the_release(name):
    model, fixture = released(name)
    model.eval()
    assert_agree(model.forward_features(fixture['input']), fixture['eval.tokens'])
    assert_agree(model(fixture['input']), fixture['eval.logits'])


@pytest.mark.parametrize('name', RELEASED_CASES)
def test_training_with_a_box_agrees_with_the_release(name):
    model, fixture = released(name)
    logits = model.train()(fixture['input'], mix_box=fixture['train.box_y1x1y2x2'])
    assert_agree(logits.cls, fixture['train.cls_logits'])
    assert_agree(logits.tokens, fixture['train.token_logits'])
    assert logits.grid == (4, 4)


def test_a_model_of_dynamic_image_size_agrees_with_the_release_too():
    model, fixture = released('lvvit_stem64_skip2', dynamic_img_size=True)
    assert_agree(model.eval()(fixture['input']), fixture['eval.logits'])
    logits = model.train()(fixture['input'], mix_box=fixture['train.box_y1x1y2x2'])
    assert_agree(logits.cls, fixture['train.cls_logits'])
    assert_agree(logits.tokens, fixture['train.token_logits'])


@pytest.mark.parametrize('name', sorted(load_json('released_models')))
def test_parameters_are_those_of_the_released_model(name):
    architecture, resolution = name.split('@')
    expected = dict(load_json('released_models')[name])
    model = timm.create_model(architecture, img_size=int(resolution), device='meta')
    assert sum(parameter.numel() for parameter in model.parameters()) == expected.pop('params')
    (shapes,) = expected.values()
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == shapes


def test_position_embedding_is_resampled_as_released():
    fixture = load('pos_embed')
    assert_agree(resample_pos_embed(fixture['from_14x14'], (24, 24), (14, 14)), fixture['to_24x24'])


def test_set_input_size_resamples_the_position_embedding_as_released():
    fixture = load('pos_embed')
    model = tiny(img_size=14 * 8)
    model.pos_embed = nn.Parameter(fixture['from_14x14'])
    model.set_input_size(24 * 8)
    assert_agree(model.pos_embed.detach(), fixture['to_24x24'])


def test_dynamic_image_size_resamples_the_position_embedding_as_released():
    fixture = load('pos_embed')
    model = tiny(img_size=14 * 8, dynamic_img_size=True)
    model.pos_embed = nn.Parameter(fixture['from_14x14'])
    nn.init.zeros_(model.cls_token)
    added = model._pos_embed(torch.zeros(1, 24, 24, 24)).detach()
    assert_agree(added, fixture['to_24x24'])


# The published models


@pytest.mark.parametrize(
    ('tag', 'file', 'size', 'crop'),
    [
        ('lvvit_t.release_224', 'v0.2.0/lvvit_t.pth', 224, 0.9),
        ('lvvit_s.release_224', '1.0/lvvit_s-26M-224-83.3.pth.tar', 224, 0.9),
        ('lvvit_s.release_384', '1.0/lvvit_s-26M-384-84.4.pth.tar', 384, 0.9),
        ('lvvit_m.release_224', '1.0/lvvit_m-56M-224-84.0.pth.tar', 224, 1.0),
        ('lvvit_m.release_384', '1.0/lvvit_m-56M-384-85.4.pth.tar', 384, 1.0),
        ('lvvit_m.release_448', '1.0/lvvit_m-56M-448-85.5.pth.tar', 448, 1.0),
        ('lvvit_l.release_448', '1.0/lvvit_l-150M-448-86.2.pth.tar', 448, 1.0),
        ('lvvit_l.release_512', '1.0/lvvit_l-150M-512-86.4.pth.tar', 512, 1.0),
    ],
)
def test_published_files_are_tags_with_their_evaluation_settings(tag, file, size, crop):
    model = timm.create_model(tag, device='meta')
    cfg = model.pretrained_cfg
    assert cfg['url'] == f'https://github.com/zihangJiang/TokenLabeling/releases/download/{file}'
    assert model.patch_embed.img_size == (size, size)
    data = timm.data.resolve_model_data_config(model)
    assert data['input_size'] == (3, size, size)
    assert (data['crop_pct'], data['interpolation']) == (crop, 'bicubic')
    assert (data['mean'], data['std']) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_any_argument_of_a_published_model_can_be_replaced():
    model = timm.create_model('lvvit_t', **TINY)
    assert model.eval()(images()).shape == (2, 5)


# Training and evaluation


def test_without_a_box_nothing_is_exchanged():
    model = tiny()
    logits = model(images())
    assert isinstance(logits, TokenLogits)
    assert logits.cls.shape == (2, 5)
    assert logits.tokens.shape == (2, 16, 5)
    assert logits.grid == (4, 4)
    assert logits.mix_box is None


def test_mix_token_draws_a_box_in_training_only():
    model = tiny(mix_token=True)
    box = model(images()).mix_box
    assert box.shape == (4,)
    assert (box >= 0).all() and (box <= 4).all()
    assert model.eval()(images()).shape == (2, 5)


def test_a_drawn_box_gives_what_the_same_box_gives_when_given():
    model = tiny(mix_token=True)
    drawn = model(images())
    again = model(images(), mix_box=tuple(drawn.mix_box.tolist()))
    torch.testing.assert_close(drawn.cls, again.cls)
    torch.testing.assert_close(drawn.tokens, again.tokens)


def test_an_empty_box_changes_nothing():
    model = tiny()
    plain, mixed = model(images()), model(images(), mix_box=(2, 2, 2, 2))
    torch.testing.assert_close(plain.tokens, mixed.tokens)


def test_a_whole_box_exchanges_the_images_and_puts_token_logits_back():
    model = tiny()
    plain, mixed = model(images()), model(images(), mix_box=(0, 0, 4, 4))
    torch.testing.assert_close(mixed.tokens, plain.tokens)
    torch.testing.assert_close(mixed.cls, plain.cls.flip(0))


def test_a_batch_of_one_can_be_mixed():
    model = tiny()
    model.patch_embed.eval()
    torch.testing.assert_close(model(images(1), mix_box=BOX).tokens, model(images(1)).tokens)


def test_a_box_in_evaluation_is_refused():
    with pytest.raises(ValueError, match='training'):
        tiny().eval()(images(), mix_box=BOX)


def test_evaluation_scores_follow_the_rule_of_the_model():
    model = tiny().eval()
    features = model.forward_features(images())
    cls, tokens = model.head(features[:, 0]), model.aux_head(features[:, 1:])
    torch.testing.assert_close(model(images()), class_scores(cls, tokens, 0.5))
    torch.testing.assert_close(model.forward_head(features), model(images()))
    model.token_score_weight = 0
    torch.testing.assert_close(model(images()), cls)


def test_patch_dropout_trains_the_class_token_alone():
    logits = tiny(patch_drop_rate=0.5)(images())
    assert logits.cls.shape == (2, 5)
    assert logits.tokens is None and logits.grid is None


def test_patch_dropout_and_mix_token_exclude_each_other():
    with pytest.raises(ValueError, match='patch_drop_rate'):
        tiny(patch_drop_rate=0.5, mix_token=True)
    with pytest.raises(ValueError, match='patch_drop_rate'):
        tiny(patch_drop_rate=0.5)(images(), mix_box=BOX)


def test_mean_pooling_feeds_normalised_tokens_to_both_heads():
    model = tiny(global_pool='avg', class_token=False).eval()
    tokens = model.fc_norm(model.forward_features(images()))
    pooled = model.fc_norm(model.forward_features(images()).mean(1))
    expected = class_scores(model.head(pooled), model.aux_head(tokens), 0.5)
    torch.testing.assert_close(model(images()), expected)


def test_one_graph_serves_every_box():
    model = tiny()
    graphs = 0

    def count(graph, _):
        nonlocal graphs
        graphs += 1
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=count)
    for box in (BOX, torch.tensor([0, 1, 2, 4])):
        expected = model(images(), mix_box=box)
        actual = compiled(images(), mix_box=box)
        torch.testing.assert_close(actual.cls, expected.cls)
        torch.testing.assert_close(actual.tokens, expected.tokens)
    assert graphs == 1


def test_evaluation_compiles_to_one_graph():
    model = tiny(dynamic_img_size=True).eval()
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(images(2, 40, 24)), model(images(2, 40, 24)))


# The network


def test_the_residual_divisor_divides_both_branches_and_adds_no_parameters():
    plain, divided = tiny(), tiny(residual_divisor=2.0)
    assert plain.state_dict().keys() == divided.state_dict().keys()
    x = torch.randn(1, 5, 24)
    block, halved = plain.blocks[0], divided.blocks[0]
    middle = x + block.attn(block.norm1(x)) / 2
    torch.testing.assert_close(halved(x), middle + block.mlp(block.norm2(middle)) / 2)


def test_layer_scale_beside_a_residual_divisor_is_refused():
    with pytest.raises(ValueError, match='init_values'):
        tiny(residual_divisor=2.0, init_values=1e-5)


@pytest.mark.parametrize('patch_size', [2, 8, 16, (16, 8)])
def test_any_even_patch_size_works(patch_size):
    model = tiny(patch_size=patch_size)
    rows, columns = model(images()).grid
    height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    assert (rows, columns) == (32 // height, 32 // width)


def test_class_token_and_position_embedding_start_as_truncated_normals():
    model = tiny(embed_dim=960, num_heads=4, depth=1)
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.aux_head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.aux_head.bias.any()


def test_init_weights_makes_the_same_kind_of_start_again():
    model = tiny(embed_dim=960, num_heads=4, depth=1)
    nn.init.zeros_(model.cls_token)
    nn.init.zeros_(model.aux_head.weight)
    model.init_weights()
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.aux_head.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_dtype_reaches_every_parameter():
    assert {parameter.dtype for parameter in tiny(dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


# Bad sizes


@pytest.mark.parametrize('make', [lambda: tiny(img_size=30), lambda: ConvStem(img_size=(32, 30), patch_size=8)])
def test_an_image_size_the_patch_does_not_divide_is_refused(make):
    with pytest.raises(UserError, match=r'does not divide .*32x32'):
        make()


def test_an_image_the_patch_does_not_divide_is_refused():
    with pytest.raises(UserError, match='does not divide the image size 32x36'):
        tiny(dynamic_img_size=True)(images(2, 32, 36))


def test_an_image_of_another_size_than_a_fixed_model_is_refused():
    with pytest.raises(UserError, match='32x32 images and got 40x40'):
        tiny()(images(2, 40, 40))


def test_an_odd_patch_size_is_refused():
    with pytest.raises(UserError, match='patch_size 7 is odd'):
        tiny(patch_size=7, img_size=28)


def test_set_input_size_refuses_sizes_the_patch_does_not_divide():
    with pytest.raises(UserError, match='does not divide'):
        tiny().set_input_size(36)


def test_set_input_size_refuses_another_patch_size():
    model = tiny()
    with pytest.raises(UserError, match='patch_size'):
        model.set_input_size(patch_size=16)
    model.set_input_size((48, 32), patch_size=8)
    assert model(images(2, 48, 32)).grid == (6, 4)


# What timm expects


def test_set_input_size_keeps_the_token_of_the_class_and_whether_it_is_trained():
    model = tiny()
    model.pos_embed.requires_grad_(False)
    before = model.pos_embed.clone()
    model.set_input_size((64, 48))
    assert model.pos_embed.shape == (1, 1 + 8 * 6, 24)
    assert torch.equal(model.pos_embed[:, 0], before[:, 0])
    assert not model.pos_embed.requires_grad


def test_dynamic_image_size_equals_a_model_set_to_that_size():
    dynamic = tiny(dynamic_img_size=True).eval()
    fixed = tiny().eval()
    fixed.set_input_size((48, 64))
    torch.testing.assert_close(dynamic(images(2, 48, 64)), fixed(images(2, 48, 64)))


@pytest.mark.parametrize('tokens', [{'no_embed_class': True}, {'reg_tokens': 2}, {'pos_embed': 'none'}])
def test_dynamic_image_size_works_with_every_kind_of_prefix(tokens):
    dynamic = tiny(dynamic_img_size=True, **tokens).eval()
    fixed = tiny(**tokens).eval()
    torch.testing.assert_close(dynamic(images()), fixed(images()))
    fixed.set_input_size((48, 64))
    torch.testing.assert_close(dynamic(images(2, 48, 64)), fixed(images(2, 48, 64)))


def test_dynamic_padding_takes_any_image():
    model = tiny(dynamic_img_size=True, dynamic_img_pad=True)
    padded = nn.functional.pad(images(2, 30, 33), (0, 7, 0, 2))
    logits = model(images(2, 30, 33))
    assert logits.grid == (4, 5)
    torch.testing.assert_close(logits.tokens, model(padded).tokens)


def test_features_only_gives_feature_maps():
    model = timm.create_model('lvvit_t', features_only=True, **(TINY | {'depth': 4}))
    maps = model(images())
    assert [tuple(level.shape) for level in maps] == [(2, 24, 4, 4)] * 3
    assert model.feature_info.channels() == [24, 24, 24]
    assert model.feature_info.reduction() == [8, 8, 8]
    assert not [name for name in model.state_dict() if 'head' in name]


def test_features_only_takes_levels_and_dynamic_sizes():
    model = timm.create_model('lvvit_t', features_only=True, out_indices=(0, 1), dynamic_img_size=True, **TINY)
    assert [tuple(level.shape) for level in model(images(2, 48, 64))] == [(2, 24, 6, 8)] * 2


def test_forward_intermediates_ends_in_the_features_of_the_model():
    model = tiny().eval()
    last, levels = model.forward_intermediates(images(), norm=True)
    features = model.forward_features(images())
    torch.testing.assert_close(last, features)
    torch.testing.assert_close(levels[-1].flatten(2).transpose(1, 2), features[:, 1:])


@pytest.mark.parametrize('mix_box', [None, BOX])
def test_gradient_checkpointing_changes_neither_gradients_nor_batch_statistics(mix_box):
    plain = tiny()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    runs = []
    handle = saving.blocks[1].register_forward_pre_hook(lambda *_: runs.append(1))
    for model in (plain, saving):
        logits = model(images(), mix_box=mix_box)
        (logits.cls.square().sum() + logits.tokens.square().sum()).backward()
    handle.remove()
    assert len(runs) == 2, 'the block was not recomputed'
    for expected, actual in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)
    torch.testing.assert_close(saving.patch_embed.bn1.running_mean, plain.patch_embed.bn1.running_mean)
    assert saving.patch_embed.bn1.num_batches_tracked == 1


def test_every_parameter_is_trained():
    model = tiny()
    logits = model(images(), mix_box=BOX)
    (logits.cls.square().sum() + logits.tokens.square().sum()).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_reset_classifier_replaces_both_heads():
    model = tiny().eval()
    model.reset_classifier(9)
    assert (model.head.out_features, model.aux_head.out_features, model.num_classes) == (9, 9, 9)
    assert model.get_classifier() is model.head
    assert model(images()).shape == (2, 9)


def test_without_classes_the_pooled_features_come_back():
    model = tiny()
    model.reset_classifier(0)
    assert model(images()).shape == (2, 24)
    assert tiny(num_classes=0).eval()(images()).shape == (2, 24)


def test_without_pooling_all_tokens_come_back():
    model = tiny(num_classes=0, global_pool='').eval()
    assert model(images()).shape == (2, 17, 24)


def test_layer_decay_puts_the_stem_first_and_both_heads_last():
    model = tiny()
    groups = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert {name: groups[name] for name in ('cls_token', 'pos_embed', 'patch_embed.conv1.weight')} == {
        'cls_token': 0,
        'pos_embed': 0,
        'patch_embed.conv1.weight': 0,
    }
    assert groups['blocks.0.mlp.fc1.weight'] < groups['blocks.1.mlp.fc1.weight'] < groups['head.weight']
    assert groups['aux_head.weight'] == groups['head.weight'] == max(groups.values())


def test_layer_decay_optimiser_gives_both_heads_the_whole_rate():
    model = tiny()
    optimizer = create_optimizer_v2(model, opt='adamw', lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scales = {parameter: group['lr_scale'] for group in optimizer.param_groups for parameter in group['params']}
    assert scales[model.head.weight] == scales[model.aux_head.weight] == 1
    assert scales[model.patch_embed.conv1.weight] < scales[model.blocks[1].mlp.fc1.weight] < 1


def test_embeddings_norms_and_biases_are_spared_weight_decay():
    model = tiny()
    optimizer = create_optimizer_v2(model, opt='adamw', lr=1e-3, weight_decay=0.05)
    decays = {parameter: group['weight_decay'] for group in optimizer.param_groups for parameter in group['params']}
    spared = [model.cls_token, model.pos_embed, model.norm.weight, model.patch_embed.bn1.weight, model.aux_head.bias]
    assert [decays[parameter] for parameter in spared] == [0] * 5
    assert decays[model.aux_head.weight] == decays[model.patch_embed.conv1.weight] == 0.05
