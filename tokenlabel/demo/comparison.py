"""Ways to pretrain, compared at the same budget on the digit scenes, by what two segmentation heads make of them.

Every row has the demo's scenes, schedule, number of steps and learning rate of pretraining, and crops from a fifth of
the image. For each row and head the learning rate of segmentation is chosen from the same two, by mIoU with a seed that
is not reported. Every run is cached below `comparison/`: a second call continues where the first one stopped.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev, variance

from tokenlabel.demo.stages import Budget, Stages, concurrent_runs
from tokenlabel.engine.config.run_config import load_config
from tokenlabel.files.writing import write_atomically

ROWS: dict[str, list[str] | None] = {
    'no pretraining': None,
    'image labels, class token': ['model.targets.type=ImageLabels'],
    'image labels on every token': ['model.targets.type=ImageLabels', 'model.targets.on_tokens=True'],
    "annotator's image label": ['model.targets.type=AnnotatorImageLabels'],
    'token labels, released geometry': ['model.targets.geometry=released'],
    'token labels, exact': [],
}
OURS = 'token labels, exact'
CROPS = 'train_dataloader.dataset.transform.scale=(0.2,1.0)'  # smaller than the demo's: where cells lie matters
HEADS = {'upernet': 'UperNet', 'fpn': 'Semantic FPN'}
# UperNet's backbone learns at this share of the head's rate, Semantic FPN has one rate for all.
SEGMENTATION_RATES = {
    'upernet': {share: f'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult={share}' for share in (0.01, 0.1)},
    'fpn': {rate: f'optim_wrapper.optimizer.lr={rate}' for rate in (0.001, 0.003)},
}
TUNING_SEED = 0
# The test after a training is enough.
NO_VALIDATION = [f'val_{part}=None' for part in ('dataloader', 'cfg', 'evaluator')]
CONFIGS = tuple(f'demo/{name}' for name in ('annotator', 'pretrain', 'fpn', 'upernet'))


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
    row = partial(Row, work_dir, budget)
    with concurrent_runs(num_jobs) as pool:
        rates = dict(zip(ROWS, pool.map(lambda name: row(name).tune(), ROWS), strict=True))
        planned = list(product(range(1, num_seeds + 1), ROWS))  # so that an unfinished table has whole seeds
        runs = list(pool.map(lambda run: row(run[1]).run(run[0], rates[run[1]]), planned))
    rows = {name: {'rates': rates[name]} for name in ROWS}
    for name, scores in rows.items():
        for score in ('top1', *HEADS):
            scores[score] = [
                run[score] for (_, of), run in zip(planned, runs, strict=True) if of == name and score in run
            ]
    result = {'seeds': num_seeds, 'annotator_top1': annotator['top1'], 'rows': rows}
    write_atomically(Path(work_dir) / 'comparison.json', json.dumps(result, indent=2) + '\n')
    print(as_markdown(result))
    return result


class Row:
    """One way to pretrain, on one thread.

    Args:
        work_dir: of the comparison.
        budget: how much of everything.
        name: a key of `ROWS`.
    """

    def __init__(self, work_dir: Path, budget: Budget, name: str) -> None:
        self.stages = Stages(work_dir, budget, say=lambda line: None, threads=1)
        self.runs = Runs(self.stages)
        self.name = name
        self.folder = f'comparison/{folder_name(name)}'

    def tune(self) -> dict[str, float]:
        """The better learning rate of each head, with a seed that is not reported."""
        pretrained, _ = self._pretrain(TUNING_SEED)
        return {
            head: max(rates, key=lambda rate, head=head: self._segment(head, pretrained, TUNING_SEED, rate))
            for head, rates in SEGMENTATION_RATES.items()
        }

    def run(self, seed: int, rates: dict[str, float]) -> dict[str, float]:
        """Scores of one seed in percent: `top1`, where there is pretraining, and the mIoU of each head."""
        pretrained, metrics = self._pretrain(seed)
        scores = {'top1': metrics['top1']} if metrics else {}
        scores |= {head: self._segment(head, pretrained, seed, rate) for head, rate in rates.items()}
        print(f'{self.name}, seed {seed}: {scores}', flush=True)
        return scores

    def _pretrain(self, seed: int) -> tuple[str | None, dict]:
        options = ROWS[self.name]
        if options is None:
            return None, {}
        run = f'{self.folder}/pretrain_seed{seed}'
        settings = [*options, CROPS, f'randomness.seed={seed}', *NO_VALIDATION]
        return run, self.runs.cached(run, {'options': settings}, lambda: self.stages.pretrain(run, settings))

    def _segment(self, head: str, pretrained: str | None, seed: int, rate: float) -> float:
        run = f'{self.folder}/{head}_rate{rate:g}_seed{seed}'
        settings = [SEGMENTATION_RATES[head][rate], f'randomness.seed={seed}', *NO_VALIDATION]
        key = {'options': settings, 'pretrained': pretrained}
        return self.runs.cached(run, key, lambda: self.stages.segment(head, pretrained, run, settings))['mIoU']


def folder_name(row: str) -> str:
    """The name of a row as the name of a folder."""
    return row.replace(' ', '_').replace(',', '').replace("'", '')


class Runs:
    """Results on disk: a run is repeated only when its settings, its configs or the budget changed.

    Args:
        stages: where and how much.
        configs: of all runs that are kept.
    """

    def __init__(self, stages: Stages, configs: Sequence[str] = CONFIGS) -> None:
        self.stages = stages
        texts = [load_config(path).pretty_text for path in sorted(configs)]
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
    """The tables of the docs: scores, and how far other rows are from exact token labels."""
    scores = {'top1': 'top-1, %'} | {head: f'{name}, mIoU %' for head, name in HEADS.items()}
    chosen = ' and '.join(HEADS.values())
    lines = ['', _line('pretraining', *scores.values(), f'rates of {chosen}'), '|---' * (len(scores) + 2) + '|']
    for name, row in result['rows'].items():
        rates = ' / '.join(f'{rate:g}' for rate in row['rates'].values())
        lines.append(_line(name, *(spread(row[score]) for score in scores), rates))
    lines += ['', f'mean and standard deviation over {result["seeds"]} seeds', '']
    lines += [_line(f'{OURS}, minus', *scores.values()), '|---' * (len(scores) + 1) + '|']
    ours = result['rows'][OURS]
    for name, row in result['rows'].items():
        if name != OURS:
            lines.append(_line(name, *(difference(ours[score], row[score]) for score in scores)))
    return '\n'.join([*lines, '', '(=): no larger than the spread, the root of the sum of both variances'])


def difference(ones: Sequence[float], others: Sequence[float]) -> str:
    """`mean - mean`, followed by `(=)` where seeds alone differ as much; a dash where there are too few seeds."""
    if min(len(ones), len(others)) < 2:
        return '-'
    value = mean(ones) - mean(others)
    within = abs(value) <= (variance(ones) + variance(others)) ** 0.5
    return f'{value:+.1f}{" (=)" if within else ""}'


def _line(*cells: str) -> str:
    return f'| {" | ".join(cells)} |'


def spread(values: Sequence[float]) -> str:
    """`mean ± standard deviation`, or the only value, or a dash."""
    if not values:
        return '-'
    return f'{mean(values):.1f} ± {stdev(values):.1f}' if len(values) > 1 else f'{values[0]:.1f}'
