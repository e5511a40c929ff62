"""The token-label loss: the fixtures of the release, and dense soft cross-entropy under autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.fixtures_io import below, cases, load
from tests.reference import losses as reference
from tokenlabel.models.token_logits import TokenLogits
from tokenlabel.objective.loss import TokenLabelLoss, sparse_soft_cross_entropy, token_accuracy
from tokenlabel.objective.targets import SparseTarget, TokenTargets, image_targets, token_targets
from tokenlabel.transforms.view import View

CASES = cases()['targets']
SETTINGS = {
    'default': {},
    'dense_half': {'dense_weight': 0.5},
    'cls_only': {'dense_weight': 0.0},
    'ground_truth': {'ground_truth': True},
}


def random_targets(
    batch: int, grid: tuple[int, int], num_classes: int, smoothing: float = 0.1, dtype: torch.dtype = torch.float32
) -> TokenTargets:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(batch, 3, 5, 5, generator=generator, dtype=dtype) * 3 + 2
    classes = torch.rand(batch, num_classes, 5, 5, generator=generator).topk(3, 1).indices
    views = torch.stack([View.crop(0.1 * i, 0, 0.5, 0.9).tensor() for i in range(batch)])
    return token_targets(scores, classes, views, grid, num_classes, smoothing)


def random_logits(batch: int, grid: tuple[int, int], num_classes: int, dtype: torch.dtype = torch.float32, **kwargs):
    generator = torch.Generator().manual_seed(1)
    shapes = (batch, num_classes), (batch, grid[0] * grid[1], num_classes)
    cls, tokens = (torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)
    return TokenLogits(cls, tokens, grid, **kwargs)


def gradients(logits: TokenLogits, loss: Tensor) -> list[Tensor]:
    """Of class and token logits; zeros where the loss does not depend on them."""
    wanted = [logits.cls, logits.tokens]
    return list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))


def assert_agrees(result: Tensor, expected: Tensor, tolerance: float) -> None:
    """To `tolerance` of the largest magnitude."""
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize('mixed', ['mixed', 'unmixed'])
@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('name', CASES)
def test_agrees_with_the_release(name, setting, mixed):
    case, maps, data = CASES[name], load(f'targets_{name}'), load(f'loss_{name}')
    grid = (case['label_size'], case['label_size'])
    views = [View.crop(left, top, w, h).tensor() for top, left, h, w in maps['crop_top_left_height_width'].tolist()]
    targets = token_targets(
        maps['scores'], maps['classes'], torch.stack(views), grid, case['num_classes'], case['smoothing']
    )
    box = data['box_y1x1y2x2'] if mixed == 'mixed' else None
    logits = TokenLogits(data['cls_logits'].requires_grad_(), data['token_logits'].requires_grad_(), grid, box)
    loss = TokenLabelLoss(**SETTINGS[setting])(logits, targets, labels=maps['image_label'])
    grad_cls, grad_tokens = gradients(logits, loss)

    expected = below(data, f'{setting}.{mixed}.')
    tolerance = 5e-5 if 'c1000' in name else 1e-5
    assert_agrees(loss.detach(), expected['loss'][0], tolerance)
    assert_agrees(grad_cls, expected['grad_cls'], tolerance)
    if 'grad_token' in expected:
        assert_agrees(grad_tokens, expected['grad_token'], tolerance)


@settings(max_examples=30)
@given(
    *[st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(3, 40)],
    *[st.booleans(), st.booleans(), st.sampled_from([0.0, 0.1]), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 2)],
)
def test_agrees_with_dense_autograd(batch, grid, num_classes, mixed, labelled, smoothing, dense_weight, cls_weight):
    targets = random_targets(batch, grid, num_classes, smoothing, torch.float64)
    logits = random_logits(batch, grid, num_classes, torch.float64, mix_box=(0, 0, 1, 1) if mixed else None)
    labels = torch.arange(batch) % num_classes
    loss = TokenLabelLoss(dense_weight, cls_weight, labelled)(logits, targets, labels)

    expected = reference.token_label_loss(
        *[logits.cls, logits.tokens, *targets.dense()],
        lam=1 - 1 / (grid[0] * grid[1]) if mixed else 1,
        label_target=image_targets(labels, None, num_classes, smoothing).dense()[0] if labelled else None,
        dense_weight=dense_weight,
        cls_weight=cls_weight,
    )
    # The share of the box is a float32.
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradients(logits, loss), gradients(logits, expected), atol=1e-7, rtol=1e-6)


def test_gradient_passes_the_numeric_check():
    target = random_targets(2, (2, 2), 6, dtype=torch.float64).tokens
    logits = random_logits(2, (2, 2), 6, torch.float64).tokens

    assert torch.autograd.gradcheck(lambda x: sparse_soft_cross_entropy(x, target) * 3, logits)


@pytest.mark.parametrize('chunk', [1, 50, 10**6])
def test_chunks_do_not_alter_the_result(monkeypatch, chunk):
    target = random_targets(5, (2, 3), 8).tokens
    logits = random_logits(5, (2, 3), 8)
    whole = sparse_soft_cross_entropy(logits.tokens, target)
    monkeypatch.setattr('tokenlabel.objective.soft_cross_entropy._CPU_CHUNK', chunk)
    chunked = sparse_soft_cross_entropy(logits.tokens, target)

    assert torch.equal(chunked, whole)
    assert torch.equal(gradients(logits, chunked)[1], gradients(logits, whole)[1])


def test_equal_class_ids_of_a_target_add_up():
    target = SparseTarget(torch.tensor([[[2, 2, 0]]]), torch.tensor([[[0.3, 0.2, 0.1]]]), torch.tensor([[0.1]]), 4)
    logits = torch.randn(1, 1, 4, requires_grad=True)
    loss = sparse_soft_cross_entropy(logits, target)
    expected = reference.soft_cross_entropy(logits, torch.tensor([[[0.2, 0.1, 0.6, 0.1]]]))

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))


def test_parts_are_weighted_and_sum_to_the_loss():
    logits, targets = random_logits(2, (2, 2), 6), random_targets(2, (2, 2), 6)
    parts = TokenLabelLoss(dense_weight=0.5, cls_weight=2).parts(logits, targets)
    plain = TokenLabelLoss().parts(logits, targets)

    assert parts['loss_cls'] == 2 * plain['loss_cls']
    assert parts['loss_tokens'] == 0.5 * plain['loss_tokens']
    assert TokenLabelLoss(0.5, 2)(logits, targets) == parts['loss_cls'] + parts['loss_tokens']


def test_the_class_token_alone_needs_no_token_targets():
    targets = image_targets(torch.tensor([1, 3]), None, 6)
    logits = TokenLogits(torch.randn(2, 6))

    assert list(TokenLabelLoss(dense_weight=0).parts(logits, targets)) == ['loss_cls']


class TestPrecision:
    """float32 inside, gradients in the type of the logits."""

    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_half_precision_logits(self, dtype):
        targets = random_targets(2, (2, 2), 50)
        logits = random_logits(2, (2, 2), 50, dtype)
        upcast = TokenLogits(*[x.detach().float().requires_grad_() for x in logits[:2]], logits.grid)
        loss, expected = TokenLabelLoss()(logits, targets), TokenLabelLoss()(upcast, targets)

        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected)
        for grad, exact in zip(gradients(logits, loss), gradients(upcast, expected), strict=True):
            assert grad.dtype == dtype
            assert torch.equal(grad, exact.to(dtype))

    def test_autocast_does_not_reach_the_loss(self):
        targets, logits = random_targets(2, (2, 2), 50), random_logits(2, (2, 2), 50, mix_box=(0, 0, 1, 2))
        labels = torch.tensor([1, 2])
        with torch.autocast('cpu', torch.bfloat16):
            mixed = TokenLabelLoss(ground_truth=True)(logits, targets, labels)

        assert torch.equal(mixed, TokenLabelLoss(ground_truth=True)(logits, targets, labels))

    def test_a_large_loss_scale_does_not_lose_small_gradients(self):
        """As a gradient scaler asks for: the scale enters before the gradient is rounded to float16."""
        targets, logits = random_targets(2, (4, 4), 50), random_logits(2, (4, 4), 50, torch.float16)
        exact = random_logits(2, (4, 4), 50, torch.float16)
        exact = TokenLogits(*[x.detach().double().requires_grad_() for x in exact[:2]], exact.grid)
        grad = gradients(logits, TokenLabelLoss()(logits, targets) * 2**14)[1].double() / 2**14
        expected = gradients(exact, TokenLabelLoss()(exact, targets))[1]

        torch.testing.assert_close(grad, expected, atol=1e-8, rtol=1e-3)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
    @pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
    def test_cuda_agrees_with_cpu(self, dtype):
        targets, logits = random_targets(3, (4, 4), 50), random_logits(3, (4, 4), 50, dtype, mix_box=(0, 1, 2, 3))
        labels = torch.tensor([1, 2, 3])
        loss = TokenLabelLoss(ground_truth=True)
        moved = [
            SparseTarget(t.ids.cuda(), t.excess.cuda(), t.background.cuda(), t.num_classes)
            for t in (targets.cls, targets.tokens)
        ]
        on_gpu = TokenLogits(*[x.detach().cuda().requires_grad_() for x in logits[:2]], *logits[2:])
        gpu_loss = loss(on_gpu, TokenTargets(*moved, targets.smoothing), labels.cuda())

        expected = loss(logits, targets, labels)
        torch.testing.assert_close(gpu_loss.cpu(), expected)
        for grad, cpu_grad in zip(gradients(on_gpu, gpu_loss), gradients(logits, expected), strict=True):
            torch.testing.assert_close(grad.cpu(), cpu_grad)


def test_only_the_gradient_has_the_size_of_the_token_logits(monkeypatch):
    grid, num_classes = (8, 8), 300
    targets, logits = random_targets(8, grid, num_classes), random_logits(8, grid, num_classes)
    monkeypatch.setattr('tokenlabel.objective.soft_cross_entropy._CPU_CHUNK', logits.tokens[0].numel())
    with torch.profiler.profile(profile_memory=True) as profile:
        TokenLabelLoss()(logits, targets).backward()
    bytes_of_four_images = 4 * logits.tokens[:4].numel()

    assert sum(event.self_cpu_memory_usage > bytes_of_four_images for event in profile.events()) == 1


class TestInPlace:
    """The gradient takes the memory of the logits."""

    @pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
    def test_the_gradient_is_the_same_and_lies_where_the_logits_were(self, dtype):
        targets = random_targets(3, (4, 4), 9)
        leaf = random_logits(3, (4, 4), 9, dtype)
        expected = gradients(leaf, TokenLabelLoss()(leaf, targets))
        copied = TokenLogits(leaf.cls.clone(), leaf.tokens.clone(), (4, 4))
        found = gradients(copied, TokenLabelLoss(in_place=True)(copied, targets))
        for one, other, logits in zip(expected, found, [copied.cls, copied.tokens], strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=0)
            assert other.data_ptr() == logits.data_ptr()

    def test_parameters_and_other_leaves_are_left_alone(self):
        logits = random_logits(3, (4, 4), 9)
        before = logits.tokens.detach().clone()
        gradients(logits, TokenLabelLoss(in_place=True)(logits, random_targets(3, (4, 4), 9)))
        assert torch.equal(logits.tokens, before)

    def test_another_use_of_the_logits_by_autograd_is_an_error(self):
        leaf = random_logits(3, (4, 4), 9)
        logits = TokenLogits(leaf.cls.clone(), leaf.tokens.clone(), (4, 4))
        loss = TokenLabelLoss(in_place=True)(logits, random_targets(3, (4, 4), 9))
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match='modified by an inplace operation'):
            loss.backward()


class TestErrors:
    """What is missing is said in one sentence."""

    def test_ground_truth_without_labels(self):
        with pytest.raises(ValueError, match='pass them as labels='):
            TokenLabelLoss(ground_truth=True)(random_logits(2, (2, 2), 6), random_targets(2, (2, 2), 6))

    def test_token_loss_without_token_targets(self):
        with pytest.raises(ValueError, match='no token targets'):
            TokenLabelLoss()(random_logits(2, (2, 2), 6), image_targets(torch.tensor([1, 2]), None, 6))

    def test_token_loss_without_token_logits(self):
        with pytest.raises(ValueError, match='needs a token head'):
            TokenLabelLoss()(TokenLogits(torch.randn(2, 6)), random_targets(2, (2, 2), 6))

    def test_targets_of_another_grid(self):
        with pytest.raises(ValueError, match=r'\[2, 4, 6\].* but their targets are \[2, 6, 6\]'):
            TokenLabelLoss()(random_logits(2, (2, 2), 6), random_targets(2, (2, 3), 6))


def test_token_accuracy_is_the_share_of_tokens_that_agree_with_their_target():
    targets = random_targets(2, (3, 4), 20)
    agreeing = targets.tokens.dense()
    assert token_accuracy(agreeing, targets.tokens) == 1
    agreeing[0] = -agreeing[0]
    assert token_accuracy(agreeing, targets.tokens) == 0.5
