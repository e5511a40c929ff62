"""Six families of networks, each trained on image labels and on token labels.

All are small and cost about the same; scenes, augmentation, steps, schedule and learning rate are the same for all, and
so are the seeds. Image labels train the class token (or what is pooled) alone, as the families are trained elsewhere.
Every run is cached below `families/`: a second call continues where the first one stopped.
"""

import json
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from statistics import mean

from tokenlabel.demo.comparison import Runs, spread
from tokenlabel.demo.stages import Budget, Stages, concurrent_runs
from tokenlabel.files.writing import write_atomically

FAMILIES = {
    'lvvit': 'LV-ViT',
    'deit': 'ViT (DeiT)',
    'swin': 'Swin',
    'mixer': 'MLP-Mixer',
    'convnext': 'ConvNeXt',
    'resnet': 'ResNet',
}
LABELS = {'image': ['model.targets.type=ImageLabels'], 'token': []}


def compare_families(work_dir: Path, budget: Budget, num_seeds: int, num_jobs: int) -> dict:
    """Runs what is missing, then prints the table and writes it to `families.json`.

    Args:
        work_dir: receives scenes, labels and every run.
        budget: how much of everything.
        num_seeds: runs of every family with either kind of labels, with seeds 1, 2, ...
        num_jobs: runs at a time, each on one thread.
    """
    stages = Stages(work_dir, budget)
    stages.draw_scenes()
    Runs(stages, ['demo/annotator']).cached('annotator', {}, stages.train_annotator)
    stages.annotate()
    planned = list(product(range(1, num_seeds + 1), FAMILIES, LABELS))
    with concurrent_runs(num_jobs) as pool:
        results = list(pool.map(lambda run: train(work_dir, budget, *run), planned))
    rows = {family: {} for family in FAMILIES}
    for kind in LABELS:
        for family, row in rows.items():
            row[kind] = [result for run, result in zip(planned, results, strict=True) if run[1:] == (family, kind)]
    result = {'seeds': num_seeds, 'rows': rows}
    write_atomically(Path(work_dir) / 'families.json', json.dumps(result, indent=2) + '\n')
    print(as_markdown(result))
    return result


def train(work_dir: Path, budget: Budget, seed: int, family: str, kind: str) -> dict:
    """One run; returns `top1` and the `seconds` it took."""
    stages = Stages(work_dir, budget, say=lambda line: None, threads=1)
    config = f'demo/families/{family}'
    run = f'families/{family}_{kind}_labels_seed{seed}'
    options = [*LABELS[kind], f'randomness.seed={seed}']

    def make() -> dict:
        begin = time.monotonic()
        top1 = stages.pretrain(run, options, config)['top1']
        return {'top1': top1, 'seconds': round(time.monotonic() - begin, 1)}

    result = Runs(stages, [config]).cached(run, {'options': options}, make)
    print(f'{FAMILIES[family]}, {kind} labels, seed {seed}: top-1 {result["top1"]:.1f} %', flush=True)
    return result


def as_markdown(result: dict) -> str:
    """The table of the docs; seconds are those of one run, evaluation included."""
    lines = ['', '| network | image labels, top-1 % | token labels, top-1 % | difference | seconds, image / token |']
    lines += ['|---|---|---|---|---|']
    for family, row in result['rows'].items():
        image, token = (_values(row[kind], 'top1') for kind in LABELS)
        seconds = ' / '.join(f'{mean(_values(row[kind], "seconds")):.0f}' for kind in LABELS)
        difference = f'{mean(token) - mean(image):+.1f}'
        lines.append(f'| {FAMILIES[family]} | {spread(image)} | {spread(token)} | {difference} | {seconds} |')
    return '\n'.join([*lines, '', f'mean and standard deviation over {result["seeds"]} seeds'])


def _values(results: Iterable[dict], name: str) -> list[float]:
    return [result[name] for result in results]
