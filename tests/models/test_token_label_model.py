"""TokenLabelModel: the interface of LV-ViT for the other families of timm."""

import copy
import pickle
from collections.abc import Callable

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from tests.tiny_classifiers import CONVNEXT, SWIN, VIT, noise
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import DenseClassifier
from tokenlabel.models import TokenLabelModel, TokenLogits, class_scores, load_checkpoint
from tokenlabel.objective.loss import TokenLabelLoss
from tokenlabel.objective.targets import image_targets
from tokenlabel.transforms.mix_token import mix_regions

RESNET = {'channels': (16, 24, 32, 40), 'stem_width': 8}
VOLO = {'img_size': 64}
MAXVIT = {'embed_dim': (32, 32, 32, 32), 'depths': (1, 1, 1, 1), 'img_size': 128}
HIERA = {'embed_dim': 24, 'stages': (1, 1, 1, 1), 'img_size': 128}

# architecture, arguments that make it small, side of the image, side of the token grid
FAMILIES = [
    ('vit_tiny_patch16_224', VIT, 32, 4),
    ('vit_little_patch16_reg4_gap_256', VIT, 32, 4),
    ('deit_tiny_distilled_patch16_224', VIT, 32, 4),
    ('deit3_small_patch16_224', VIT, 32, 4),
    ('cait_xxs24_224', VIT, 32, 4),
    ('beit_base_patch16_224', VIT, 32, 4),
    ('eva02_tiny_patch14_336', VIT, 32, 4),
    ('vit_tiny_patch16_dinov3_qkvb', VIT, 32, 4),
    ('xcit_nano_12_p8_224', {'img_size': 64, 'embed_dim': 32, 'depth': 2}, 64, 8),
    ('swin_tiny_patch4_window7_224', SWIN, 64, 8),
    ('swinv2_tiny_window8_256', SWIN, 64, 8),
    ('mixer_s16_224', {'img_size': 64}, 64, 4),
    ('resmlp_12_224', {'img_size': 64}, 64, 4),
    ('convnext_tiny', CONVNEXT, 64, 2),
    ('resnet10t', RESNET, 64, 2),
    ('regnety_002', {}, 64, 2),
    ('efficientnet_b0', {}, 64, 2),
    ('mobilenetv3_small_050', {}, 64, 2),
    ('pvt_v2_b0', {}, 64, 2),
    ('maxvit_tiny_tf_224', MAXVIT, 128, 4),
    ('hiera_tiny_224', HIERA, 128, 4),
    ('volo_d1_224', VOLO, 64, 4),
]
EVERY_FAMILY = pytest.mark.parametrize(
    ('name', 'kwargs', 'size', 'side'), FAMILIES, ids=[name for name, *_ in FAMILIES]
)
SEVERAL_HEADS = {'deit_tiny_distilled_patch16_224', 'volo_d1_224'}
# Families whose patches are exchanged after the patch embedding; the others have their pixels exchanged.
PATCHES = {'vit', 'deit', 'deit3', 'cait', 'beit', 'eva02', 'xcit', 'swin', 'swinv2', 'pvt', 'hiera', 'volo'}


def tiny(name: str, seed: int = 0, **kwargs) -> TokenLabelModel:
    """A small model with random weights, in the heads as well, where timm begins with zeros."""
    torch.manual_seed(seed)
    model = TokenLabelModel(name, **({'num_classes': 7} | kwargs))
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def frozen_statistics(model: nn.Module) -> nn.Module:
    """In training, but without what depends on other images or on chance."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or 'drop' in type(module).__name__.lower():
            module.eval()
    return model


@EVERY_FAMILY
def test_training_gives_logits_of_the_image_and_of_every_location_and_trains_everything(name, kwargs, size, side):
    model = tiny(name, mix_token=True, **kwargs).train()
    output = model(noise(size))
    assert isinstance(output, TokenLogits)
    assert output.cls.shape == (2, 7) and output.tokens.shape == (2, side * side, 7)
    assert tuple(output.grid) == (side, side) and output.mix_box.shape == (4,)
    targets = image_targets(torch.tensor([1, 2]), output.grid, 7)
    TokenLabelLoss()(output, targets).backward()
    without = [key for key, value in model.named_parameters() if value.grad is None]
    assert not without
    classifiers = model.backbone.get_classifier()
    for head in (model.aux_head, *(classifiers if isinstance(classifiers, tuple) else (classifiers,))):
        assert head.weight.grad.any()


@EVERY_FAMILY
@torch.no_grad()
def test_evaluation_scores_the_class_head_and_the_best_token(name, kwargs, size, side):
    model = tiny(name, **kwargs).eval()
    features = model.forward_features(noise(size))
    cls, tokens = model.backbone.forward_head(features), model.token_logits(features)
    torch.testing.assert_close(model(noise(size)), class_scores(cls, tokens, 0.5))
    model.token_score_weight = 0.0
    torch.testing.assert_close(model(noise(size)), cls)


@pytest.mark.parametrize(
    ('name', 'kwargs', 'size'), [family[:3] for family in FAMILIES if family[0] not in SEVERAL_HEADS]
)
@torch.no_grad()
def test_a_location_is_seen_as_the_class_head_sees_an_image_of_nothing_else(name, kwargs, size):
    model = tiny(name, **kwargs).eval()
    features = model.forward_features(noise(size))
    cells = DenseClassifier(copy.deepcopy(model.backbone)).classify(noise(size))[1].flatten(2).transpose(1, 2)
    model.aux_head = model.backbone.get_classifier()
    torch.testing.assert_close(model.token_logits(features), cells, atol=1e-4, rtol=1e-4)


@EVERY_FAMILY
@torch.no_grad()
def test_an_empty_box_changes_nothing_and_a_full_one_exchanges_images_but_not_their_tokens(name, kwargs, size, side):
    model = frozen_statistics(tiny(name, **kwargs))
    plain = model(noise(size))
    empty = model(noise(size), mix_box=(0, 0, 0, 0))
    full = model(noise(size), mix_box=(0, 0, side, side))
    tolerance = {'atol': 1e-4, 'rtol': 1e-4}
    torch.testing.assert_close((empty.cls, empty.tokens), (plain.cls, plain.tokens), **tolerance)
    torch.testing.assert_close((full.cls.flip(0), full.tokens), (plain.cls, plain.tokens), **tolerance)


@EVERY_FAMILY
@torch.no_grad()
def test_the_box_is_exchanged_in_patches_or_pixels_at_its_place(name, kwargs, size, side):
    model = frozen_statistics(tiny(name, **kwargs))
    images, box, grid = noise(size), torch.tensor([0, side // 2, side // 2, side]), (side, side)
    first = model.backbone.patch_embed if model._patch_format else next(m for m in model.modules() if is_leaf(m))
    _, plain = what_passes(first, lambda: model(images))
    pixels, mixed = what_passes(first, lambda: model.forward_features(images, box))
    mixed_pixels = mix_regions(images.permute(0, 2, 3, 1), box, grid).permute(0, 3, 1, 2)
    if model._patch_format is None:
        assert name.split('_')[0] not in PATCHES
        torch.testing.assert_close(pixels, mixed_pixels)
        return
    assert name.split('_')[0] in PATCHES
    torch.testing.assert_close(pixels, images)
    own, other = map_of(plain, model), map_of(mixed, model)
    torch.testing.assert_close(mix_regions(own, box, grid), other)
    # Patches of exchanged pixels are those of the partner in the box and your own outside, but for what stems see
    # beyond a patch.
    from_pixels, unlike = map_of(first(mixed_pixels), model), own - own.flip(0)
    row, column = own.shape[1] // 4, own.shape[2] * 3 // 4
    for place, whose in (((row, column), own.flip(0)), ((row * 3, column), own)):
        error = (whose - from_pixels)[:, *place].norm()
        assert error < 0.2 * unlike[:, *place].norm()
        torch.testing.assert_close(other[:, *place], whose[:, *place])


def what_passes(module: nn.Module, run: Callable[[], object]) -> tuple[Tensor, Tensor | tuple]:
    """Input of a module while something runs, and its output as other hooks leave it."""
    seen, hooks = [], []

    def arm(module: nn.Module, inputs: tuple) -> None:
        hooks.append(module.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output))))

    hooks.append(module.register_forward_pre_hook(arm))  # hooks run in the order in which they came
    run()
    for hook in hooks:
        hook.remove()
    return seen[-1]


def is_leaf(module: nn.Module) -> bool:
    return not list(module.children()) and not isinstance(module, nn.Identity)


def map_of(patches: Tensor | tuple, model: TokenLabelModel) -> Tensor:
    """Patches as [B, rows, columns, D]."""
    patches = patches[0] if isinstance(patches, tuple) else patches
    if model._patch_format == 'tokens':
        side = round(patches.shape[1] ** 0.5)
        return patches.unflatten(1, (side, side))
    return patches if model._patch_format == 'NHWC' else patches.permute(0, 2, 3, 1)


@torch.no_grad()
def test_token_logits_in_the_box_are_those_of_the_image_that_the_tokens_come_from():
    model = frozen_statistics(tiny('vit_tiny_patch16_224', **(VIT | {'depth': 0})))
    output = model(noise(), mix_box=(1, 0, 3, 2))
    torch.testing.assert_close(output.tokens, model(noise()).tokens)


@torch.no_grad()
def test_with_a_linear_head_the_mean_over_tokens_is_the_token_head_on_the_pooled_features():
    for name, kwargs, size in (('resnet10t', RESNET, 64), ('swin_tiny_patch4_window7_224', SWIN, 64)):
        model = tiny(name, **kwargs).eval()
        features = model.forward_features(noise(size))
        pooled = model.forward_head(features, pre_logits=True)
        torch.testing.assert_close(model.token_logits(features).mean(1), model.aux_head(pooled), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ('name', 'kwargs', 'reason'),
    [
        (
            'vgg11',
            {'mlp_ratio': 0.01},
            'vgg11 cannot have a token head: its head depends on the order of the locations',
        ),
        ('pit_ti_224', {}, 'its features are the class token alone'),
        ('inception_v3', {}, 'its convolutions have no padding'),
        ('coat_tiny', {}, 'its features are not one feature map'),
        ('vit_tiny_patch16_224', VIT | {'patch_drop_rate': 0.5}, 'drops tokens in training .* patch_drop_rate=0'),
        ('eva02_tiny_patch14_336', VIT | {'patch_drop_rate': 0.5}, 'drops tokens in training'),
        ('vit_tiny_patch16_224', VIT | {'global_pool': ''}, 'its head depends on the order of the locations'),
        ('lvvit_t', {}, 'lvvit_t has a token head already'),
    ],
)
def test_a_backbone_without_locations_is_refused_with_the_reason(name, kwargs, reason):
    with pytest.raises(UserError, match=reason):
        TokenLabelModel(name, **kwargs)


def test_a_box_in_evaluation_is_refused():
    with pytest.raises(ValueError, match='in training only'):
        tiny('resnet10t', **RESNET).eval()(noise(64), mix_box=(0, 0, 1, 1))


@pytest.mark.parametrize('size', [(64, 96), (96, 64)])
def test_images_that_are_not_square_have_a_grid_of_their_shape(size):
    rows, columns = size[0] // 8, size[1] // 8
    images = torch.randn(2, 3, *size)
    vit = tiny('vit_tiny_patch16_224', mix_token=True, **(VIT | {'img_size': size})).train()
    assert vit(images).grid == (rows, columns)
    assert tiny('resnet10t', mix_token=True, **RESNET).train()(images).grid == (rows // 4, columns // 4)


def test_a_token_head_that_the_backbone_brings_is_taken_over():
    torch.manual_seed(0)
    volo = timm.create_model('volo_d1_224', num_classes=7, **VOLO)
    model = tiny('volo_d1_224', **VOLO).eval()
    model.load_state_dict(
        {
            name if name.startswith('aux_head.') else f'backbone.{name}': value
            for name, value in volo.state_dict().items()
        }
    )
    torch.testing.assert_close(model(noise(64)), volo.eval()(noise(64)))


def test_other_classes_give_both_heads_new_weights():
    for name, kwargs, size in (('resnet10t', RESNET, 64), ('volo_d1_224', VOLO, 64)):
        model = tiny(name, **kwargs).train()
        model.reset_classifier(3)
        output = model(noise(size))
        assert model.num_classes == output.cls.shape[1] == output.tokens.shape[2] == 3
        assert model.get_classifier().out_features == 3
        model.reset_classifier(0)
        assert model(noise(size)).shape == (2, model.num_features)


@torch.no_grad()
def test_another_pooling_keeps_the_token_head_in_step_and_the_box_exchanged_once():
    model = frozen_statistics(tiny('vit_tiny_patch16_224', **VIT))
    model.reset_classifier(3, 'avg')
    pooled = model.forward_head(model.forward_features(noise()), pre_logits=True)
    torch.testing.assert_close(model(noise()).tokens.mean(1), model.aux_head(pooled), atol=1e-4, rtol=1e-4)
    plain, full = model(noise()), model(noise(), mix_box=(0, 0, 4, 4))
    torch.testing.assert_close(full.cls.flip(0), plain.cls)
    assert not torch.allclose(full.cls, plain.cls)
    with pytest.raises(UserError, match='depends on the order of the locations'):
        model.reset_classifier(3, '')


def test_it_keeps_what_timm_offers_for_training():
    model = tiny('vit_tiny_patch16_224', **VIT).train()
    assert model.no_weight_decay() >= {'backbone.pos_embed', 'backbone.cls_token'}
    groups = create_optimizer_v2(model, 'adamw', layer_decay=0.5, weight_decay=0.05).param_groups
    scales = {id(value): group['lr_scale'] for group in groups for value in group['params']}
    decays = {id(value): group['weight_decay'] for group in groups for value in group['params']}
    named = dict(model.named_parameters())
    assert len(scales) == len(named)
    assert scales[id(named['aux_head.weight'])] == scales[id(named['backbone.head.weight'])] == 1
    assert scales[id(named['backbone.patch_embed.proj.weight'])] < scales[id(named['backbone.blocks.1.mlp.fc1.weight'])]
    assert decays[id(named['backbone.pos_embed'])] == 0 < decays[id(named['aux_head.weight'])]
    assert model.pretrained_cfg['classifier'] == ('backbone.head', 'aux_head')
    model.set_grad_checkpointing()
    assert model.backbone.grad_checkpointing


@torch.no_grad()
def test_copies_and_pickles_say_the_same_in_training_and_evaluation():
    model = tiny('swin_tiny_patch4_window7_224', mix_token=True, **SWIN)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other.eval()(noise(64)), model.eval()(noise(64)))
        frozen_statistics(model), frozen_statistics(other)
        mixed = [x(noise(64), mix_box=(1, 2, 5, 8)) for x in (model, other)]
        torch.testing.assert_close(mixed[0].tokens, mixed[1].tokens)
        assert not torch.allclose(mixed[1].tokens, other(noise(64), mix_box=(0, 0, 0, 0)).tokens)


@pytest.mark.parametrize(('name', 'kwargs'), [('vit_tiny_patch16_224', VIT), ('convnext_tiny', CONVNEXT)])
def test_training_with_mix_token_compiles_to_one_graph_for_every_box(name, kwargs):
    model = frozen_statistics(tiny(name, mix_token=True, **(kwargs | {'drop_path_rate': 0.0})))
    size = model._image_size[0]
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, backend=backend)
    for box in ([0, 0, 1, 1], [0, 1, 2, 2], [0, 0, 0, 0]):
        expected = model(noise(size), mix_box=torch.tensor(box))
        torch.testing.assert_close(compiled(noise(size), mix_box=torch.tensor(box)).tokens, expected.tokens)
    assert len(graphs) == 1


def test_an_error_in_the_backbone_leaves_no_box_behind():
    model = frozen_statistics(tiny('vit_tiny_patch16_224', **VIT))
    plain = model(noise()).tokens
    with pytest.raises(RuntimeError):
        model.forward_features(noise()[:, :1], torch.tensor([0, 0, 2, 2]))
    torch.testing.assert_close(model.token_logits(model.backbone.forward_features(noise())), plain)


def test_making_a_model_leaves_random_numbers_and_statistics_alone():
    torch.manual_seed(0)
    bare = timm.create_model('resnet10t', num_classes=7, **RESNET)
    wrapped = tiny('resnet10t', **RESNET).backbone
    for name, value in bare.state_dict().items():
        if value.any():
            torch.testing.assert_close(wrapped.state_dict()[name], value)


def test_it_annotates_with_its_token_head():
    model = tiny('resnet10t', **RESNET).eval()
    image_logits, maps = DenseClassifier(model).classify(noise(64))
    torch.testing.assert_close(image_logits, model(noise(64)))
    tokens = model.token_logits(model.forward_features(noise(64)))
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), tokens)


# Checkpoints


def test_weights_of_the_bare_backbone_load_and_leave_the_token_head(tmp_path, caplog):
    bare = timm.create_model('vit_tiny_patch16_224', num_classes=7, **VIT)
    torch.save(bare.state_dict(), tmp_path / 'bare.pth')
    model = tiny('vit_tiny_patch16_224', seed=1, **VIT)
    head = model.aux_head.weight.clone()
    load_checkpoint(model, tmp_path / 'bare.pth')
    torch.testing.assert_close(model.backbone.state_dict(), bare.state_dict())
    assert torch.equal(model.aux_head.weight, head)
    assert 'has no token head' in caplog.text


def test_weights_load_into_the_bare_backbone(tmp_path):
    model = tiny('swin_tiny_patch4_window7_224', **SWIN)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'ours.pth')
    bare = timm.create_model('swin_tiny_patch4_window7_224', num_classes=7, **SWIN)
    load_checkpoint(bare, tmp_path / 'ours.pth')
    torch.testing.assert_close(bare.state_dict(), model.backbone.state_dict())


def test_weights_of_another_resolution_and_other_classes_load(tmp_path, caplog):
    torch.save(tiny('vit_tiny_patch16_224', **VIT).state_dict(), tmp_path / 'small.pth')
    model = tiny('vit_tiny_patch16_224', seed=1, **(VIT | {'img_size': 64, 'num_classes': 3}))
    heads = model.aux_head.weight.clone(), model.backbone.head.weight.clone()
    load_checkpoint(model, tmp_path / 'small.pth')
    assert model.backbone.pos_embed.shape[1] == 1 + 8 * 8
    assert torch.equal(heads[0], model.aux_head.weight) and torch.equal(heads[1], model.backbone.head.weight)
    assert 'backbone.head' in caplog.text and 'aux_head' in caplog.text


def test_a_pretrained_backbone_starts_its_token_head_as_its_class_head(tmp_path):
    torch.save(timm.create_model('resnet10t', **RESNET).state_dict(), tmp_path / 'weights.pth')
    overlay = {'file': str(tmp_path / 'weights.pth')}
    model = TokenLabelModel('resnet10t', pretrained=True, pretrained_cfg_overlay=overlay, **RESNET)
    assert torch.equal(model.aux_head.weight, model.backbone.fc.weight)
    assert not torch.equal(model.aux_head.weight, TokenLabelModel('resnet10t', **RESNET).aux_head.weight)
