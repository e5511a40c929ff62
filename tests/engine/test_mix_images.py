"""CutMix and Mixup of pixels, as configs turn them on."""

from pathlib import Path

import pytest
import torch

from tests.reference import losses as reference_losses
from tests.reference import mix_images as reference
from tests.tiny_classifiers import LVVIT, tiny
from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.engine.preprocessor import ImagePreprocessor
from tokenlabel.errors import UserError
from tokenlabel.transforms.mix_images import ImageMix
from tokenlabel.transforms.view import View

BOTH = {'type': 'ImagePreprocessor', 'cutmix': 1.0, 'mixup': 0.8}
MIX = ImageMix(1.0, (5, 0, 27, 19), (32, 32))


def classifier(targets: dict, **options) -> TokenLabelClassifier:
    network = LVVIT | {'model_name': 'lvvit_t', 'num_classes': 7, 'mix_token': False}
    return TokenLabelClassifier(network, targets, data_preprocessor=BOTH, **options).train()


def batch_of(images: int = 4) -> dict:
    generator = torch.Generator().manual_seed(0)
    view = View.identity().tensor().repeat(images, 1, 1)
    return {
        'image': torch.randn(images, 3, 32, 32, generator=generator),
        'label': torch.tensor([1, 4, 4, 0]),
        'scores': torch.randn(images, 3, 5, 5, generator=generator) * 3,
        'classes': torch.rand(images, 7, 5, 5, generator=generator).topk(3, 1).indices,
        'view': view,
        'map_view': view,
    }


@pytest.mark.parametrize('mix', [MIX, ImageMix(0.3, (0, 0, 0, 0), (32, 32))], ids=['cutmix', 'mixup'])
@pytest.mark.parametrize(
    'targets',
    [
        {'type': 'TokenLabels', 'smoothing': 0.1},
        {'type': 'ImageLabels', 'smoothing': 0.1},
        {'type': 'ImageLabels', 'on_tokens': True},
        {'type': 'AnnotatorImageLabels'},
    ],
    ids=['token labels', 'image labels', 'image labels on tokens', "annotator's image labels"],
)
def test_the_loss_is_that_of_dense_targets_mixed_by_what_is_shown(targets, mix):
    model, batch = classifier(targets), batch_of()
    logits = model.model(batch['image'])
    cls, tokens = model.targets(batch, logits.grid, 7).dense()
    own = reference.own_pixels(mix.lam, mix.box, mix.size)
    expected = {
        'loss_cls': reference_losses.soft_cross_entropy(
            logits.cls, reference.mixed_targets(cls[:, None], own.mean().float()[None])[:, 0]
        )
    }
    if tokens is not None:
        shares = reference.own_tokens(own, logits.grid).float()
        expected['loss_tokens'] = reference_losses.soft_cross_entropy(
            logits.tokens, reference.mixed_targets(tokens, shares)
        )
    losses = model(batch | {'mix': mix}, mode='loss')
    losses.pop('token_accuracy', None)
    torch.testing.assert_close(losses, expected)


def test_an_annotator_that_sees_the_mixture_labels_it(tmp_path):
    torch.save(tiny('lvvit_t', **LVVIT).state_dict(), tmp_path / 'a.pth')
    annotator = {'name': 'lvvit_t', 'checkpoint': str(tmp_path / 'a.pth'), 'size': 32, 'model_kwargs': LVVIT}
    model, batch = classifier({'type': 'AnnotatorTokenLabels', 'annotator': annotator}), batch_of()
    expected = model.targets(batch, (4, 4), 7)
    ours = model.targets_of(batch | {'mix': MIX}, (4, 4))
    torch.testing.assert_close(ours.dense(), expected.dense())


def test_images_are_mixed_in_training_only():
    data = {'image': torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8), 'label': torch.arange(4)}
    plain = ImagePreprocessor()(data)['batch']['image']
    mixing = ImagePreprocessor(cutmix=1.0, mixup=0.8)
    assert torch.equal(mixing(data)['batch']['image'], plain) and 'mix' not in mixing(data)['batch']
    batch = mixing(data, training=True)['batch']
    torch.testing.assert_close(batch['image'], batch['mix'].images(plain))


def test_as_many_batches_are_mixed_as_asked():
    torch.manual_seed(0)
    data = {'image': torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}
    mixing = ImagePreprocessor(mixup=0.8, mix_prob=0.25)
    mixed = ['mix' in mixing(data, training=True)['batch'] for _ in range(400)]
    assert sum(mixed) / 400 == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize(
    ('options', 'message'), [({'cutmix': -1.0}, r'cutmix is -1\.0'), ({'mix_prob': 2.0}, r'mix_prob is 2\.0')]
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(UserError, match=f'{message}: give'):
        ImagePreprocessor(**options)


def test_mix_token_beside_it_is_refused():
    network = LVVIT | {'model_name': 'lvvit_t', 'num_classes': 7, 'mix_token': True}
    with pytest.raises(UserError, match=r'would mix a batch twice: set model\.network\.mix_token=False'):
        TokenLabelClassifier(network, {'type': 'TokenLabels'}, data_preprocessor=BOTH)


def test_image_labels_refining_single_images_are_refused():
    with pytest.raises(UserError, match=r'model\.loss\.ground_truth .* set it to False'):
        classifier({'type': 'TokenLabels'}, loss={'ground_truth': True})


def test_a_config_trains_with_it(make_runner):
    runner = make_runner(**{'model.data_preprocessor.cutmix': 1.0, 'model.data_preprocessor.mixup': 0.8})
    before = runner.model.model.aux_head.weight.clone()
    runner.train()
    assert runner.iter == 3 and not torch.equal(runner.model.model.aux_head.weight, before)
    assert Path(runner.work_dir, 'first_batch.png').is_file()
