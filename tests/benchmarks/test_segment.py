"""The benchmark of evaluation runs, and compares things that agree."""

import re

SIZES = ('--height', '50', '--width', '70', '--classes', '5', '--images', '2', '--batch', '2', '--runs', '1')


def test_batched_windows_are_compared_with_the_original_on_equal_results(run_here):
    options = ('--config', 'configs/demo/upernet.py', '--windows-per-batch', '2')
    done = run_here('benchmark', 'segment', '--device', 'cpu', *options, *SIZES)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r'logits within (\S+) of the largest', done.stdout)[1]) < 1e-4
    assert 'the metrics are equal' in done.stdout
    assert 'times faster' in done.stdout
    assert re.search(r'one image, 1 windows at once: peak memory \d+ MB against \d+ MB', done.stdout)
