"""Which way soft cross-entropy is computed, and the kernel on machines without a GPU."""

import sys
from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tokenlabel.objective import soft_cross_entropy as ops


def arguments(device: str, dtype: torch.dtype = torch.float32, num_ids: int = 4) -> list[torch.Tensor]:
    shapes = {'ids': (2, 3, num_ids), 'excess': (2, 3, num_ids), 'background': (2, 3)}
    logits = torch.zeros(2, 3, 7, device=device, dtype=dtype, requires_grad=True)
    ids, excess, background = (torch.zeros(shape, device=device) for shape in shapes.values())
    return [logits, ids.long(), excess, background]


def is_fused(loss: torch.Tensor) -> bool:
    return 'tokenlabel_soft_cross_entropy' in type(loss.grad_fn).__name__


def test_the_kernel_agrees_in_tritons_interpreter(run_tool):
    pytest.importorskip('triton')
    tests = 'tests/objective/test_soft_cross_entropy_kernel.py'
    done = run_tool(sys.executable, '-m', 'pytest', '-q', tests, TRITON_INTERPRET='1')
    assert done.returncode == 0, done.stdout[-5000:]
    assert ' passed' in done.stdout and 'skipped' not in done.stdout


def test_the_kernel_compiled_for_a_gpu_reads_logits_once():
    """Where a token's logits fit into registers."""
    pytest.importorskip('triton')
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from tokenlabel.objective.soft_cross_entropy_kernel import _token_kernel

    pointers = {'logits': '*bf16', 'ids': '*i64', 'slopes': '*bf16'}
    constants = {
        'STRIDE_IMAGE': 196_000,
        'STRIDE_TOKEN': 1000,
        'STRIDE_CLASS': 1,
        'NUM_CLASSES': 1000,
        'BLOCK': 1024,
        'IDS_BLOCK': 64,
    }
    signature = dict.fromkeys(['logits', 'ids', 'excess', 'background', 'losses', 'slopes'], '*fp32') | pointers
    signature |= {'num_tokens': 'i32', 'num_ids': 'i32', 'unit': 'fp32'} | dict.fromkeys(constants, 'constexpr')
    compiled = compile(ASTSource(_token_kernel, signature, constants), GPUTarget('cuda', 90, 32))
    loads = [line for line in compiled.asm['ttir'].splitlines() if 'tt.load' in line]

    assert sum('tensor<1024x!tt.ptr<bf16>>' in line for line in loads) == 1


class TestChoice:
    """The kernel on CUDA, where a gradient is wanted and targets are sparse; on a machine without a GPU, pretended."""

    @pytest.fixture(autouse=True)
    def pretended(self, monkeypatch) -> Iterator[None]:
        pytest.importorskip('triton')
        monkeypatch.setattr(ops, '_has_triton', lambda: True)
        with FakeTensorMode():
            yield

    @pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
    def test_on_cuda(self, dtype):
        assert is_fused(ops.soft_cross_entropy(*arguments('cuda', dtype)))

    def test_not_where_it_is_switched_off(self):
        assert not is_fused(ops.soft_cross_entropy(*arguments('cuda'), fused=False))

    def test_not_on_the_cpu(self):
        assert not is_fused(ops.soft_cross_entropy(*arguments('cpu')))

    def test_not_in_float64(self):
        assert not is_fused(ops.soft_cross_entropy(*arguments('cuda', torch.float64)))

    def test_not_for_targets_of_many_classes(self):
        assert not is_fused(ops.soft_cross_entropy(*arguments('cuda', num_ids=129)))

    def test_not_where_no_gradient_is_wanted(self):
        with torch.no_grad():
            assert not ops.kernel_is_faster(*arguments('cuda')[:2])

    def test_not_without_triton(self, monkeypatch):
        monkeypatch.setattr(ops, '_has_triton', lambda: False)
        assert not is_fused(ops.soft_cross_entropy(*arguments('cuda')))


def test_the_loss_needs_no_triton(run_tool):
    program = """
import sys
sys.modules['triton'] = None
from tests.objective.test_soft_cross_entropy import arguments
from tokenlabel.objective import soft_cross_entropy as ops
assert not ops._has_triton()
ops.soft_cross_entropy(*arguments('cpu')).backward()
"""
    done = run_tool(sys.executable, '-c', program)
    assert done.returncode == 0, done.stderr
