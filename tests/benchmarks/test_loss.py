"""Benchmarks run, and compare things that agree."""

import re

import pytest


def test_sparse_and_dense_losses_are_compared_on_equal_results(run_here):
    sizes = ('--batch', '2', '--classes', '20', '--grid', '4', '--cells', '5', '--k', '3', '--runs', '2')
    done = run_here('benchmark', 'loss', '--device', 'cpu', *sizes)
    assert done.returncode == 0, done.stderr
    sparse, dense = map(float, re.search(r'loss (\S+) \(sparse\), (\S+) \(dense\)', done.stdout).groups())
    assert abs(sparse - dense) < 1e-5 * dense
    assert float(re.search(r'gradients within (\S+)', done.stdout)[1]) < 1e-4
    assert 'times faster' in done.stdout
    assert re.search(r'peak memory beside the logits \d+ MB against \d+ MB', done.stdout)


def test_a_label_store_is_compared_with_a_file_per_image(run_here):
    sizes = ('--images', '8', '--img-size', '64', '--maps', '50', '--entries', '3000', '--runs', '1')
    annotator = ('--annotator', 'test_resnet', '--batch-size', '4', '--workers', '1')
    done = run_here('benchmark', 'labels', '--device', 'cpu', *annotator, *sizes)
    assert done.returncode == 0, done.stderr
    store, files = map(int, re.findall(r'bytes per image, .*: (\d+)', done.stdout))
    assert 18 * 18 * 5 * 4 < store < files
    assert 'reading 50 maps' in done.stdout
    assert re.search(r'opening a store of 3,000 images.*\n  worker 0: open .* MiB private', done.stdout)


def test_a_training_step_is_compared_with_the_plainest_one_on_equal_losses(run_here):
    sizes = ('--model', 'lvvit_t', '--batch', '2', '--img-size', '32', '--classes', '20', '--runs', '1')
    done = run_here('benchmark', 'step', '--device', 'cpu', *sizes, '--peak-tflops', '1')
    assert done.returncode == 0, done.stderr
    ours, plain = map(float, re.search(r'first step (\S+) \(ours\), (\S+) \(straight', done.stdout).groups())
    assert ours == pytest.approx(plain, rel=1e-3)
    assert re.search(r'targets and loss with its gradient: .* ms, .*% of the step', done.stdout)
    assert re.search(r'TFLOP a step, .* TFLOP/s, .*% of the device', done.stdout)
