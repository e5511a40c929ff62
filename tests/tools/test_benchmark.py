"""Benchmarks run, and compare things that agree."""

import re


def test_sparse_and_dense_losses_are_compared_on_equal_results(run_tool):
    sizes = ('--batch', '2', '--classes', '20', '--grid', '4', '--cells', '5', '--k', '3', '--runs', '2')
    done = run_tool('tools/benchmark.py', 'loss', '--device', 'cpu', *sizes)
    assert done.returncode == 0, done.stderr
    sparse, dense = map(float, re.search(r'loss (\S+) \(sparse\), (\S+) \(dense\)', done.stdout).groups())
    assert abs(sparse - dense) < 1e-5 * dense
    assert float(re.search(r'gradients within (\S+)', done.stdout)[1]) < 1e-4
    assert 'times faster' in done.stdout
