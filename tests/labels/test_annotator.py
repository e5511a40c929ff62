"""DenseClassifier, loading annotators and the annotation loop."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data.readers import create_reader
from timm.models.mlp_mixer import MlpMixer
from timm.models.vgg import VGG
from timm.models.volo import VOLO
from torch import Tensor, nn

from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import (
    DenseClassifier,
    SquashedImages,
    annotate,
    class_names,
    load_annotator,
    map_side,
    weights_digest,
)
from tokenlabel.labels.store import LabelStore, LabelWriter, image_keys

VIT = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2}
SWIN = {'img_size': 64, 'window_size': 2, 'embed_dim': 16, 'depths': (1, 1), 'num_heads': (1, 2)}
MIXER = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'num_blocks': 2}
NFNET = {'depths': (1, 1), 'channels': (16, 32), 'num_features': 48, 'group_size': 8}
LVVIT = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2, 'stem_width': 8}
OUTLOOKER = {
    'img_size': 64,
    'layers': (1, 1),
    'embed_dims': (24, 24),
    'num_heads': (2, 2),
    'downsamples': (True, False),
    'outlook_attention': (True, False),
}


def tiny(architecture: str | Callable[..., nn.Module], **kwargs) -> nn.Module:
    """A small classifier with random weights, in the head as well, where timm begins with zeros."""
    torch.manual_seed(0)
    make = partial(timm.create_model, architecture) if isinstance(architecture, str) else architecture
    model = make(num_classes=7, **kwargs).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def noise(size: int = 32, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


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
        logits = dense(noise(96))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, dense(noise(96)), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ('make', 'reason'),
    [
        (lambda: tiny(VGG, cfg=[8, 'M', 8, 'M']), 'its head tells locations apart'),
        (lambda: tiny('coat_tiny', img_size=96, serial_depths=(1, 1, 1, 1)), 'its features are not one feature map'),
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


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match='takes squares'):
        DenseClassifier(tiny('test_resnet'))(torch.zeros(1, 3, 64, 96))


@pytest.fixture
def weights(tmp_path) -> Path:
    """Checkpoint of a tiny classifier into three classes."""
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=3)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'weights.pth')
    return tmp_path / 'weights.pth'


def test_a_checkpoint_brings_its_number_of_classes(weights):
    annotator = load_annotator('test_resnet', weights, size=64)
    assert annotator.dense.num_classes == 3
    assert map_side(annotator.dense, 64) == 2
    assert annotator.record['digest'] == weights_digest(load_annotator('test_resnet', weights, size=96).dense.model)


def test_the_digest_tells_weights_apart(weights):
    one = load_annotator('test_resnet', weights)
    with torch.no_grad():
        one.dense.model.fc.bias[0] += 1
    assert weights_digest(one.dense.model) != one.record['digest']


def test_the_input_is_the_one_timm_evaluates_with(weights):
    annotator = load_annotator('test_resnet', weights)
    assert annotator.size == 160
    assert annotator.mean == (0.5, 0.5, 0.5)


def test_a_vit_is_fitted_to_the_input_size(tmp_path):
    torch.save(tiny('vit_tiny_patch16_224', **VIT).state_dict(), tmp_path / 'vit.pth')
    annotator = load_annotator('vit_tiny_patch16_224', tmp_path / 'vit.pth', size=48, model_kwargs=VIT)
    assert annotator.dense.num_classes == 7
    assert map_side(annotator.dense, 48) == 6


@pytest.mark.parametrize(
    ('name', 'kwargs', 'said'),
    [
        ('test_resnot', {}, 'There is no annotator test_resnot: did you mean test_resnet'),
        ('test_resnet', {'num_classes': 5}, 'classifies into 3 classes, not 5'),
        ('test_resnet', {'model_kwargs': {'colour': 'red'}}, r"cannot be made with \{'colour': 'red'"),
        ('test_vit', {}, 'weights.pth'),
    ],
)
def test_what_cannot_be_loaded_says_why(weights, name, kwargs, said):
    with pytest.raises(UserError, match=said):
        load_annotator(name, weights, **kwargs)


def test_unreachable_pretrained_weights_name_the_other_way():
    with (
        mock.patch('timm.create_model', side_effect=ConnectionError('no route to host')),
        pytest.raises(UserError, match=r'No pretrained weights for test_resnet \(no route to host\).*--checkpoint'),
    ):
        load_annotator('test_resnet')


def test_an_input_size_that_the_model_does_not_take_is_refused():
    dense = DenseClassifier(tiny('vit_tiny_patch16_224', **VIT))
    with pytest.raises(UserError, match='does not take images of 64x64 pixels'):
        map_side(dense, 64)


@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (lambda: tiny('test_resnet'), 'cells of 32 pixels, which do not divide 80: choose an image size of 64 or 96'),
        (lambda: tiny('vit_tiny_patch16_224', **VIT | {'img_size': 80, 'patch_size': 12}), 'cells of 12 pixels'),
    ],
)
def test_an_input_size_that_is_no_whole_number_of_cells_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        map_side(DenseClassifier(make()), 80)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten images in three class folders; natural and byte-wise order of their names differ."""
    random = np.random.default_rng(0)
    for number in range(10):
        path = tmp_path / 'images' / f'class {"abc"[number % 3]}' / f'ö{number + 5}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20 + number, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path / 'images'


def writer_for(path: Path, reader) -> LabelWriter:
    return LabelWriter(
        path,
        image_keys(reader),
        annotator={'name': 'test_resnet'},
        num_classes=7,
        k=3,
        grid=(3, 3),
        view={'rule': 'squash', 'size': 96},
        batch_size=4,
    )


def test_a_store_holds_the_best_scores_of_each_whole_image(folder, tmp_path):
    dense = DenseClassifier(tiny('test_resnet'))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    reader = create_reader('', str(folder))
    with writer_for(tmp_path / 'store', reader) as writer:
        annotate(dense, reader, writer, mean, std)
        writer.finalise()
    store = LabelStore(tmp_path / 'store')
    assert len(store) == 10
    for index, key in enumerate(store.keys):
        image = Image.open(folder / key)
        pixels = torch.from_numpy(np.array(image.resize((96, 96), Image.Resampling.BICUBIC))).permute(2, 0, 1) / 255
        logits = dense(((pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))[None])[0]
        scores, classes = logits.sort(dim=0, descending=True)
        np.testing.assert_allclose(store[index].scores, scores[:3], atol=1e-3, rtol=1e-3)
        np.testing.assert_array_equal(store[index].classes, classes[:3])
        assert store.size(index) == image.size


def test_an_interrupted_annotation_is_resumed(folder, tmp_path):
    dense = DenseClassifier(tiny('test_resnet'))
    reader = create_reader('', str(folder))
    channels = (0.5, 0.5, 0.5)

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with writer_for(tmp_path / 'store', reader) as writer, pytest.raises(KeyboardInterrupt):
        annotate(dense, reader, writer, channels, channels, on_batch=stop)
    counts = []
    with writer_for(tmp_path / 'store', reader) as writer:
        annotate(dense, reader, writer, channels, channels, on_batch=counts.append)
        writer.finalise()
    assert counts == [4, 2]


def test_an_unreadable_image_is_named(folder, tmp_path):
    broken = folder / 'class b' / 'ö6.png'
    broken.write_bytes(broken.read_bytes()[:300])
    reader = create_reader('', str(folder))
    with writer_for(tmp_path / 'store', reader) as writer, pytest.raises(UserError, match=r'class b/ö6\.png'):
        annotate(DenseClassifier(tiny('test_resnet')), reader, writer, (0.5,) * 3, (0.5,) * 3, workers=1)


def test_grey_and_palette_images_become_rgb(tmp_path):
    (tmp_path / 'c').mkdir()
    Image.new('L', (10, 20), 7).save(tmp_path / 'c' / 'grey.png')
    Image.new('P', (30, 20), 0).save(tmp_path / 'c' / 'palette.png')
    images = SquashedImages(create_reader('', str(tmp_path)), np.arange(2), 16)
    assert [images[index][1] for index in range(2)] == [(10, 20), (30, 20)]
    assert all(images[index][0].shape == (3, 16, 16) for index in range(2))


def test_class_names_are_the_folders_where_there_is_one_for_each_class(folder):
    reader = create_reader('', str(folder))
    assert class_names(reader, 3) == ['class a', 'class b', 'class c']
    assert class_names(reader, 7) is None
