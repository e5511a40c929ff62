"""The loader's benchmark runs every way of loading."""

import re


def test_every_way_of_loading_is_compared_with_the_usual_one(run_here):
    sizes = ('--images', '4', '--batch', '2', '--width', '150', '--height', '120', '--img-size', '32', '--runs', '1')
    done = run_here('benchmark', 'loader', '--device', 'cpu', *sizes)
    assert done.returncode == 0, done.stderr
    assert '4 JPEG files of 150 x 120' in done.stdout
    names = re.findall(r'^(.+): .* times faster', done.stdout, re.MULTILINE)
    augment = 'rand-m9-mstd0.5-inc1'
    assert names == [
        f'{augment}, as timm',
        f'{augment}, draft',
        'no RandAugment, as timm',
        'no RandAugment, draft',
    ]
    assert len(re.findall(r'images/s per core', done.stdout)) == len(names)
    assert len(re.findall(r'then on cpu: .* ms per batch of 2', done.stdout)) == len(names)
