"""The Triton kernel agrees with dense float64 soft cross-entropy: on a GPU, or on the CPU in Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest tests/objective/test_soft_cross_entropy_kernel.py
"""

import os

import pytest
import torch
from torch import Tensor

from tests.reference.losses import soft_cross_entropy as reference
from tokenlabel.objective.targets import SparseTarget

kernel = pytest.importorskip('tokenlabel.objective.soft_cross_entropy_kernel', reason='needs Triton')

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cpu' if INTERPRETED else 'cuda'
pytestmark = (
    []
    if INTERPRETED
    else [
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device or TRITON_INTERPRET=1'),
    ]
)
PRECISION = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def random_case(
    num_classes: int, dtype: torch.dtype = torch.float32, num_ids: int = 5, batch: int = 2, num_tokens: int = 3
) -> tuple[Tensor, SparseTarget]:
    """Logits, and targets with some equal class ids."""
    generator = torch.Generator().manual_seed(num_classes)
    rows = (batch, num_tokens)
    logits = (3 * torch.randn(*rows, num_classes, generator=generator)).to(DEVICE, dtype).requires_grad_()
    ids = torch.randint(num_classes, (*rows, num_ids), generator=generator)
    ids[..., -1] = ids[..., 0]
    shares = torch.rand(*rows, num_ids + 1, generator=generator).softmax(-1)
    excess, background = shares[..., 1:].contiguous(), shares[..., 0] / num_classes
    return logits, SparseTarget(ids.to(DEVICE), excess.to(DEVICE), background.to(DEVICE), num_classes)


def fused(logits: Tensor, target: SparseTarget) -> Tensor:
    return kernel.fused_soft_cross_entropy(logits, target.ids, target.excess, target.background)[0]


def assert_agrees(logits: Tensor, target: SparseTarget, factor: float = 1) -> None:
    loss = fused(logits, target)
    (grad,) = torch.autograd.grad(loss * factor, logits)
    exact = logits.detach().double().requires_grad_()
    expected = reference(exact, target.dense())
    (expected_grad,) = torch.autograd.grad(expected * factor, exact)

    assert loss.dtype == torch.float32
    assert grad.dtype == logits.dtype
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(grad.double(), expected_grad, atol=2e-7 * abs(factor), rtol=PRECISION[logits.dtype])


@pytest.mark.parametrize('dtype', PRECISION, ids=str)
@pytest.mark.parametrize('num_classes', [1, 7, 1000, 21841])
def test_loss_and_gradient(num_classes, dtype):
    assert_agrees(*random_case(num_classes, dtype))


@pytest.mark.parametrize('dtype', PRECISION, ids=str)
def test_a_row_that_does_not_fit_is_read_twice(monkeypatch, dtype):
    monkeypatch.setattr(kernel, 'MAX_BLOCK', 4096)
    assert_agrees(*random_case(21841, dtype))


def test_blocks_of_falling_and_rising_logits(monkeypatch):
    """The greatest logit so far changes from block to block, or does not."""
    monkeypatch.setattr(kernel, 'MAX_BLOCK', 16)
    logits, target = random_case(50)
    rising = torch.linspace(-200, 200, 50, device=DEVICE)
    assert_agrees((logits.detach() + rising).requires_grad_(), target)
    assert_agrees((logits.detach() - rising).requires_grad_(), target)


@pytest.mark.parametrize('num_ids', [1, 2, 16, 17, 45, 128])
def test_numbers_of_ids(num_ids):
    assert_agrees(*random_case(60, num_ids=num_ids))


def test_one_class_listed_everywhere():
    logits, target = random_case(9, num_ids=40)
    assert_agrees(logits, SparseTarget(torch.full_like(target.ids, 4), target.excess, target.background, 9))


@pytest.mark.parametrize('dtype', PRECISION, ids=str)
@pytest.mark.parametrize('factor', [0.5, -3.0, 2.0**14])
def test_a_weighted_loss(dtype, factor):
    assert_agrees(*random_case(50, dtype), factor)


def test_small_gradients_survive_float16():
    """Divided by the number of tokens they would vanish before the loss scale comes."""
    logits, target = random_case(1000, torch.float16, batch=8, num_tokens=8)
    grad, expected = (
        torch.autograd.grad(loss * 2**16, logits)[0]
        for loss in (fused(logits, target), reference(logits.double(), target.dense()))
    )
    torch.testing.assert_close(grad, expected, atol=1e-4, rtol=2e-3)


class TestStrides:
    """Logits and targets need not be contiguous."""

    def test_channels_first_logits(self):
        logits, target = random_case(21)
        assert_agrees(logits.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_(), target)

    def test_logits_without_the_class_token(self):
        logits, _ = random_case(21)
        _, without_first = random_case(21, num_tokens=2)
        assert_agrees(logits.detach()[:, 1:].requires_grad_(), without_first)

    def test_expanded_targets(self):
        logits, target = random_case(21)
        parts = [part[:, :1].expand_as(part) for part in (target.ids, target.excess, target.background)]
        assert_agrees(logits, SparseTarget(*parts, 21))


def test_logits_that_are_not_finite_give_a_loss_that_is_not_finite():
    logits, target = random_case(21)
    for value in (float('nan'), float('inf')):
        with torch.no_grad():
            logits[0, 1, 2] = value
        assert not fused(logits, target).isfinite()


@pytest.mark.parametrize('stray', [-1, 21, -(2**40), 2**40])
def test_an_id_beyond_the_classes_touches_no_memory_of_others_and_makes_its_token_nan(stray):
    """The middle of three rows has one; the rows beside it are computed as without it, to the bit."""
    logits, target = random_case(21, batch=1)
    ids = target.ids.clone()
    ids[0, 1, 2] = stray
    beside = [0, 2]
    expected = kernel.fused_soft_cross_entropy(logits, target.ids, target.excess, target.background)[1]
    loss, slopes = kernel.fused_soft_cross_entropy(logits, ids, target.excess, target.background)
    assert loss.isnan()
    assert slopes[0, 1].isnan().all()
    assert torch.equal(slopes[0, beside], expected[0, beside])


def test_a_factor_that_is_not_a_number_reaches_the_gradient():
    logits, target = random_case(21)
    assert torch.autograd.grad(fused(logits, target) * float('nan'), logits)[0].isnan().all()


def test_an_unweighted_gradient_is_not_written_again():
    """It is what the forward pass left, to the bit and in the same memory."""
    logits, target = random_case(21, torch.bfloat16)
    loss, slopes = kernel.fused_soft_cross_entropy(logits, target.ids, target.excess, target.background)
    before = slopes.clone()
    (grad,) = torch.autograd.grad(loss, logits)

    assert grad.data_ptr() == slopes.data_ptr()
    assert torch.equal(grad, before)


def test_a_second_derivative_is_refused():
    logits, target = random_case(21)
    (grad,) = torch.autograd.grad(fused(logits, target) ** 2, logits, create_graph=True)
    with pytest.raises(RuntimeError, match='differentiate twice'):
        grad.sum().backward()


def test_a_second_backward_pass_is_refused():
    logits, target = random_case(21)
    loss = fused(logits, target)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


def test_registered_with_torch_as_it_behaves():
    logits, target = random_case(7)
    # The one check left out also asks for the slopes, which the backward pass makes the gradient, as an output.
    checks = ('test_schema', 'test_autograd_registration', 'test_faketensor')
    arguments = (logits, target.ids, target.excess, target.background)
    torch.library.opcheck(kernel.fused_soft_cross_entropy, arguments, test_utils=checks)
    torch.library.opcheck(kernel._scale_, (logits.detach().clone(), torch.tensor(0.5, device=DEVICE), 3.0))


def test_one_graph_under_torch_compile():
    logits, target = random_case(7)
    compiled = torch.compile(lambda x: 2 * fused(x, target), backend='aot_eager', fullgraph=True)
    (grad,) = torch.autograd.grad(compiled(logits), logits)

    assert torch.equal(grad, torch.autograd.grad(2 * fused(logits, target), logits)[0])
