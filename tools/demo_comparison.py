"""Ways to pretrain, compared at the same budget on the digit scenes.

Every row has the same scenes, augmentation, schedule, number of steps and segmentation head. For each row the learning
rate of pretraining is chosen from the same two, by top-1 with a seed that is not reported; segmentation has one rate
for all. Every run is cached below `comparison/`: a second call goes on where the first one stopped.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from tokenlabel.engine.config import load_config
from tokenlabel.files import write_atomically

from demo_stages import ROOT, Budget, Stages

ROWS: dict[str, list[str] | None] = {
    'no pretraining': None,
    'image labels, class token': ['model.targets.type=ImageLabels'],
    'image labels on every token': ['model.targets.type=ImageLabels', 'model.targets.on_tokens=True'],
    "annotator's image label": ['model.targets.type=AnnotatorImageLabels'],
    'token labels, released geometry': ['model.targets.geometry=released'],
    'token labels, exact': [],
}
PRETRAIN_RATES = (1.5e-3, 3e-3)
SEGMENTATION_RATE = 1e-3
TUNING_SEED = 0
HEAD = 'fpn'
CONFIGS = tuple(f'configs/demo/{name}.py' for name in ('annotator', 'pretrain', 'fpn', 'upernet'))


def compare(work_dir: Path, budget: Budget, num_seeds: int, num_jobs: int) -> dict:
    """Runs what is missing, then prints the table and writes it to `comparison.json`.

    Args:
        work_dir: receives scenes, labels and every run.
        budget: how much of everything.
        num_seeds: reported runs of every row, with seeds 1, 2, ...
        num_jobs: rows at a time, each on one thread.
    """
    stages = Stages(work_dir, budget)
    stages.draw_scenes()
    annotator = Runs(stages).cached('annotator', {}, stages.train_annotator)
    stages.annotate()
    with ThreadPoolExecutor(num_jobs) as pool:
        futures = {name: pool.submit(run_row, work_dir, budget, name, num_seeds) for name in ROWS}
        rows = {name: future.result() for name, future in futures.items()}
    result = {'seeds': num_seeds, 'head': HEAD, 'annotator_top1': annotator['top1'], 'rows': rows}
    write_atomically(Path(work_dir) / 'comparison.json', json.dumps(result, indent=2) + '\n')
    print(as_markdown(result))
    return result


def run_row(work_dir: Path, budget: Budget, name: str, num_seeds: int) -> dict:
    """One row: the learning rate first, then the seeds; returns the chosen rate and every score."""
    stages = Stages(work_dir, budget, say=lambda line: None, threads=1)
    runs = Runs(stages)
    folder = f'comparison/{name.replace(" ", "_").replace(",", "").replace(chr(39), "")}'
    options = ROWS[name]

    def pretrain(rate: float, seed: int) -> tuple[str | None, dict]:
        if options is None:
            return None, {}
        run = f'{folder}/pretrain_lr{rate:g}_seed{seed}'
        settings = [*options, f'optim_wrapper.optimizer.lr={rate}', f'randomness.seed={seed}']
        return run, runs.cached(run, {'options': settings}, lambda: stages.pretrain(run, settings))

    def segment(pretrained: str | None, seed: int) -> dict:
        run = f'{folder}/{HEAD}_lr{SEGMENTATION_RATE:g}_seed{seed}'
        settings = [f'optim_wrapper.optimizer.lr={SEGMENTATION_RATE}', f'randomness.seed={seed}']
        key = {'options': settings, 'pretrained': pretrained}
        return runs.cached(run, key, lambda: stages.segment(HEAD, pretrained, run, settings))

    pretrain_rate = None
    if options is not None:
        pretrain_rate = max(PRETRAIN_RATES, key=lambda rate: pretrain(rate, TUNING_SEED)[1]['top1'])
    top1, miou = [], []
    for seed in range(1, num_seeds + 1):
        pretrained, metrics = pretrain(pretrain_rate, seed)
        top1 += [metrics['top1']] if metrics else []
        miou.append(segment(pretrained, seed)['mIoU'])
        print(f'{name}, seed {seed}: top-1 {top1[-1] if top1 else "-"}, mIoU {miou[-1]}', flush=True)
    return {'top1': top1, 'mIoU': miou, 'pretrain_lr': pretrain_rate}


class Runs:
    """Results on disk: a run is repeated only when its settings, its configs or the budget changed.

    Args:
        stages: where and how much.
        configs: of all runs that are kept.
    """

    def __init__(self, stages: Stages, configs: Sequence[str] = CONFIGS) -> None:
        self.stages = stages
        texts = [load_config(ROOT / path).pretty_text for path in sorted(configs)]
        self.digest = hashlib.sha256('\n'.join(texts).encode()).hexdigest()[:16]

    def cached(self, run: str, settings: dict, make: Callable[[], dict]) -> dict:
        """The metrics of a run, from disk where it is there."""
        path = self.stages.work_dir / run / 'result.json'
        settings = settings | {'budget': vars(self.stages.budget), 'configs': self.digest}
        if path.is_file():
            result = json.loads(path.read_text())
            if result['settings'] == settings:
                return result['metrics']
        metrics = make()
        write_atomically(path, json.dumps({'settings': settings, 'metrics': metrics}, indent=2) + '\n')
        return metrics


def as_markdown(result: dict) -> str:
    """The table of the README."""
    lines = ['', '| pretraining | top-1, % | mIoU, % | learning rate |', '|---|---|---|---|']
    for name, row in result['rows'].items():
        rate = row['pretrain_lr'] or '-'
        lines.append(f'| {name} | {spread(row["top1"])} | {spread(row["mIoU"])} | {rate} |')
    return '\n'.join([*lines, '', f'mean and standard deviation over {result["seeds"]} seeds'])


def spread(values: Sequence[float]) -> str:
    """`mean ± standard deviation`, or the only value, or a dash."""
    if not values:
        return '-'
    return f'{mean(values):.1f} ± {stdev(values):.1f}' if len(values) > 1 else f'{values[0]:.1f}'
