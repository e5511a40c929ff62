"""DenseClassifier: logits per location, faithful to the model or refused."""

from collections.abc import Callable

import pytest
import timm
import torch
from timm.models.mlp_mixer import MlpMixer
from timm.models.vgg import VGG
from timm.models.volo import VOLO
from torch import Tensor, nn

from tests.tiny_classifiers import LVVIT, MIXER, NFNET, OUTLOOKER, SWIN, VIT, noise, tiny
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator.dense_classifier import DenseClassifier


def at_each(layer: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """[B, C, S, S] of a function of vectors, applied to each location of `features` [B, D, S, S] on its own."""
    rows = range(features.shape[2])
    cells = [torch.stack([layer(features[:, :, row, column]) for column in rows], dim=-1) for row in rows]
    return torch.stack(cells, dim=-2)


@pytest.mark.parametrize(
    ('architecture', 'kwargs', 'size'),
    [
        ('test_resnet', {}, 96),
        ('regnety_002', {}, 96),
        ('test_byobnet', {}, 96),
        ('test_efficientnet', {}, 96),
        ('test_nfnet', {}, 96),
        ('dm_nfnet_f0', NFNET, 64),
        ('test_resnet', {'global_pool': 'avg', 'output_stride': 8}, 64),
        ('vit_tiny_patch16_224', VIT | {'global_pool': 'avg', 'class_token': False, 'fc_norm': False}, 32),
        ('vit_tiny_patch16_224', VIT | {'global_pool': 'avg', 'reg_tokens': 2, 'fc_norm': False}, 32),
        ('swin_tiny_patch4_window7_224', SWIN, 64),
        (MlpMixer, MIXER, 32),
    ],
)
def test_where_the_head_is_linear_after_average_pooling_the_mean_is_the_models_output(architecture, kwargs, size):
    model = tiny(architecture, **kwargs)
    dense = DenseClassifier(model)(noise(size))
    assert dense.shape[:2] == (2, 7)
    assert dense.shape[2] == dense.shape[3] > 1
    torch.testing.assert_close(dense.mean(dim=(2, 3)), model(noise(size)), rtol=1e-4, atol=1e-4)


def test_normalisation_after_pooling_is_applied_per_location():
    model = tiny('test_convnext')
    features = model.forward_features(noise(96))
    expected = at_each(lambda x: model.head.fc(model.head.norm(x[:, :, None, None]).flatten(1)), features)
    torch.testing.assert_close(DenseClassifier(model)(noise(96)), expected)


def test_hidden_layers_after_pooling_are_applied_per_location():
    model = tiny('mobilenetv3_small_050')
    features = model.forward_features(noise(96))
    expected = at_each(lambda x: model.forward_head(x[:, :, None, None]), features)
    torch.testing.assert_close(DenseClassifier(model)(noise(96)), expected)


def test_attention_pooling_sees_each_location_on_its_own():
    model = tiny('vit_tiny_patch16_224', global_pool='map', class_token=False, **VIT)
    patches = model.forward_features(noise())
    expected = at_each(lambda x: model.head(model.attn_pool(x[:, None])), patches.transpose(1, 2).unflatten(2, (4, 4)))
    torch.testing.assert_close(DenseClassifier(model)(noise()), expected)


@pytest.mark.parametrize('pooling', ['token', 'avg'])
def test_the_head_of_a_vit_is_applied_to_every_patch_token(pooling):
    model = tiny('vit_tiny_patch16_224', global_pool=pooling, **VIT)
    patches = model.forward_features(noise())[:, 1:]
    expected = model.head(model.fc_norm(patches)).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(DenseClassifier(model)(noise()), expected)


def test_both_heads_of_a_distilled_vit_are_averaged():
    model = tiny('deit_tiny_distilled_patch16_224', **VIT)
    patches = model.forward_features(noise())[:, 2:]
    expected = ((model.head(patches) + model.head_dist(patches)) / 2).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(DenseClassifier(model)(noise()), expected)


@pytest.mark.parametrize(('architecture', 'kwargs', 'size'), [('lvvit_t', LVVIT, 32), (VOLO, OUTLOOKER, 64)])
def test_a_token_head_answers_for_the_tokens(architecture, kwargs, size):
    model = tiny(architecture, **kwargs)
    patches = model.forward_features(noise(size))[:, 1:]
    expected = model.aux_head(patches).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(DenseClassifier(model)(noise(size)), expected)


def test_a_token_head_that_the_score_leaves_out_is_left_out():
    model = tiny('lvvit_t', token_score_weight=0.0, **LVVIT)
    patches = model.forward_features(noise())[:, 1:]
    expected = model.head(patches).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(DenseClassifier(model)(noise()), expected)


def test_a_class_token_that_the_model_does_not_tell_of_is_left_out():
    model = tiny('coat_lite_tiny', img_size=96)
    expected = model.head(model.forward_features(noise(96))[:, 1:]).transpose(1, 2).unflatten(2, (3, 3))
    torch.testing.assert_close(DenseClassifier(model)(noise(96)), expected)


@pytest.mark.parametrize(
    ('architecture', 'kwargs', 'size'),
    [('test_resnet', {}, 96), ('test_convnext', {}, 96), ('vit_tiny_patch16_224', VIT, 32), ('lvvit_t', LVVIT, 32)],
)
def test_the_logits_of_images_are_the_models_own_from_the_same_features(architecture, kwargs, size):
    model = tiny(architecture, **kwargs)
    dense = DenseClassifier(model)
    dense(noise(size))
    extractions = []
    dense.features = lambda images: extractions.append(len(images)) or model.forward_features(images)
    image_logits, maps = dense.classify(noise(size))
    assert extractions == [2]
    torch.testing.assert_close(image_logits, model(noise(size)))
    torch.testing.assert_close(maps, dense(noise(size)))


@pytest.mark.parametrize(
    ('architecture', 'kwargs', 'size'),
    [('test_resnet', {'output_stride': 8}, 64), (MlpMixer, MIXER, 32), ('swin_tiny_patch4_window7_224', SWIN, 64)],
)
def test_maps_are_upright(architecture, kwargs, size):
    dense = DenseClassifier(tiny(architecture, **kwargs))
    plain = noise(size, batch=1)
    marked = plain.clone()
    marked[:, :, : size // 4, -size // 4 :] += 5.0
    changed = (dense(marked) - dense(plain)).abs().sum(dim=1)
    quarters = nn.functional.adaptive_avg_pool2d(changed, 2)[0]
    assert quarters.argmax() == 1


def test_the_head_runs_in_float32_under_autocast():
    dense = DenseClassifier(tiny('test_resnet'))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        image_logits, logits = dense.classify(noise(96))
    assert image_logits.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(logits, dense(noise(96)), rtol=0.1, atol=0.1)


def test_the_feature_extractor_may_be_compiled():
    dense = DenseClassifier(tiny('test_resnet'))
    expected = dense(noise(96))
    dense.features = torch.compile(dense.features, backend='eager', fullgraph=True)
    torch.testing.assert_close(dense(noise(96)), expected)


@pytest.mark.parametrize('architecture', ['test_resnet', 'test_convnext'])
def test_channels_last_gives_the_same_logits(architecture):
    dense = DenseClassifier(tiny(architecture))
    expected = dense(noise(96))
    dense.to(memory_format=torch.channels_last)
    logits = dense(noise(96).to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(
    ('make', 'reason'),
    [
        (lambda: tiny(VGG, cfg=[8, 'M', 8, 'M']), 'its head depends on the order of the locations'),
        (lambda: tiny('coat_tiny', img_size=96, serial_depths=(1, 1, 1, 1)), 'its features are not one feature map'),
        (lambda: tiny('pit_ti_224', img_size=96), 'its features are the class token alone'),
        (lambda: tiny('inception_v3'), 'its convolutions have no padding and leave out the border of 96x96 pixels'),
        (lambda: timm.create_model('test_resnet', num_classes=0), 'it has no classes'),
        (lambda: tiny('test_vit', img_size=96, global_pool='', class_token=False), 'its head does not give one vector'),
        (lambda: nn.Linear(3, 4), 'it has no forward_features'),
        (lambda: MoreThanItsHead(), 'its output is more than its head applied to its features'),
        (lambda: Counting(), 'its head depends on the number of locations'),
    ],
)
def test_a_model_without_a_faithful_dense_form_is_refused_with_the_reason(make, reason):
    with pytest.raises(UserError, match=f'cannot annotate: {reason}'):
        DenseClassifier(make())(noise(96))


class MoreThanItsHead(nn.Module):
    num_classes = 3

    def forward_features(self, x):
        return nn.functional.avg_pool2d(x, 8)

    def forward_head(self, x):
        return x.mean(dim=(2, 3))

    def forward(self, x):
        return self.forward_head(self.forward_features(x)) + 1


class Counting(MoreThanItsHead):
    def forward_head(self, x):
        return x.sum(dim=(2, 3))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def test_weights_that_give_no_finite_scores_are_named_as_the_cause():
    model = tiny('test_resnet')
    nn.init.constant_(model.fc.weight, torch.nan)
    with pytest.raises(UserError, match='not finite: check its weights'):
        DenseClassifier(model)(noise(96))


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match='takes squares'):
        DenseClassifier(tiny('test_resnet'))(torch.zeros(1, 3, 64, 96))
