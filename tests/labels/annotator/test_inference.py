"""Inference: how an annotator is run."""

import pytest
import torch

from tests.tiny_classifiers import VIT, tiny
from tokenlabel.labels.annotator import Annotator
from tokenlabel.labels.annotator.dense_classifier import DenseClassifier
from tokenlabel.labels.annotator.inference import PRECISIONS, Inference
from tokenlabel.labels.view_rule import Native, Squash

HALF = (0.5, 0.5, 0.5)


def images(batch: int, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, 3, size, size), generator=random, dtype=torch.uint8)
    return pixels, torch.full((batch, 2), size)


def inference(rule=None, architecture: str = 'test_resnet', model: dict | None = None, **options) -> Inference:
    annotator = Annotator(DenseClassifier(tiny(architecture, **(model or {}))), 64, HALF, HALF, {})
    return Inference(annotator, rule or Squash(64), 3, **options)


def test_the_best_class_of_an_image_is_the_models_own():
    pixels, sizes = images(5)
    run = inference()
    assert torch.equal(run(pixels, sizes).best, run.dense.model((pixels - 127.5) / 127.5).argmax(1))


@pytest.mark.parametrize('precision', sorted(PRECISIONS))
def test_every_precision_gives_scores_near_those_of_fp32(precision):
    pixels, sizes = images(2)
    scores = inference(precision=precision)(pixels, sizes).scores
    assert scores.dtype == torch.float16
    torch.testing.assert_close(scores, inference()(pixels, sizes).scores, atol=0.1, rtol=0.1)


def test_fp32_is_not_tf32(monkeypatch):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    monkeypatch.setattr(cudnn, 'allow_tf32', True)
    run, seen = inference(), []
    classify = run.dense.classify

    def noting(inputs):
        seen.append((matmul.allow_tf32, cudnn.allow_tf32))
        return classify(inputs)

    run.dense.classify = noting
    run(*images(1))
    assert seen == [(False, False)]
    assert cudnn.allow_tf32


def test_feature_maps_are_channels_last_and_tokens_are_not():
    assert inference().memory_format == torch.channels_last
    tokens = inference(Squash(32), 'vit_tiny_patch16_224', VIT)
    assert tokens.memory_format == torch.contiguous_format


def test_images_without_a_size_have_an_empty_map():
    pixels, sizes = images(3)
    sizes[1] = 0
    maps = inference(Native(64))(pixels, sizes)
    assert not maps.scores[1].any()
    assert not maps.classes[1].any()
    assert maps.scores[[0, 2]].all()


def test_padding_to_the_compiled_batch_size_leaves_the_images_as_they_are(monkeypatch):
    monkeypatch.setattr(torch, 'compile', lambda features, **options: features)
    pixels, sizes = images(3)
    padded = inference(batch_size=8)(pixels, sizes)
    plain = inference()(pixels, sizes)
    assert len(padded.scores) == len(padded.best) == 3
    torch.testing.assert_close(padded.scores, plain.scores, atol=1e-2, rtol=1e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('flip', [False, True])
def test_a_gpu_gives_the_scores_of_the_cpu(flip):
    pixels, sizes = images(4)
    maps = inference(device='cuda', flip=flip)(pixels, sizes)
    maps.wait()
    torch.testing.assert_close(maps.scores, inference(flip=flip)(pixels, sizes).scores, atol=2e-3, rtol=2e-3)
