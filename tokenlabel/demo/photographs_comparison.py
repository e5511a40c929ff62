"""Ways to pretrain on photographs (Imagenette), compared by what segmentation heads make of them on CamVid.

Every row has the same images, schedule, steps and learning rates; `configs/imagenette` and `configs/camvid` state them.
Every run is cached: the same command continues where it was stopped, and the table shows what is there.
"""

import json
from itertools import product
from pathlib import Path
from typing import NamedTuple

from tokenlabel.demo.comparison import NO_VALIDATION, Runs, folder_name, spread
from tokenlabel.demo.stages import Budget, Stages, concurrent_runs, length
from tokenlabel.files.writing import write_atomically

IMAGES = Path('data/imagenette/train')
SCORES_PER_CELL = 50  # as the ten classes are rarely among the five best of 1000, see configs/imagenette/README.md
ROWS: dict[str, list[str] | None] = {
    'no pretraining': None,
    'image labels': ['model.targets.type=ImageLabels'],
    "annotator's image label": ['model.targets.type=AnnotatorImageLabels'],
    'token labels, released geometry': ['model.targets.geometry=released'],
    'token labels, exact': [],
}
LENGTHS = {10: 'imagenette/pretrain', 40: 'imagenette/pretrain_40ep'}  # epochs
HEADS = {
    'linear': 'linear, backbone frozen, mIoU %',
    'fpn': 'Semantic FPN, mIoU %',
    'upernet': 'UperNet, mIoU %',
}


class Cell(NamedTuple):
    """One pretraining, or none where `epochs` is 0, and the heads over it."""

    seed: int
    epochs: int
    row: str


def compare_photographs(
    work_dir: Path,
    budget: Budget,
    annotator: list[str],
    num_seeds: int,
    num_jobs: int,
    epochs: tuple[int, ...] = tuple(LENGTHS),
) -> list[dict]:
    """Runs what is missing; returns all results and writes them to `photographs.json`, the table to `photographs.md`.

    Args:
        work_dir: receives labels and every run.
        budget: `pretrain_iterations` and `segmentation_iterations` shorten the runs.
        annotator: arguments of `tokenlabel annotate` that name the annotator.
        num_seeds: runs of every row, with seeds 1, 2, ...; whole seeds come first.
        num_jobs: rows at a time, each on one thread.
        epochs: lengths of pretraining, keys of `LENGTHS`.
    """
    labels = Stages(work_dir, budget).annotate_photographs(IMAGES, [*annotator, '--k', SCORES_PER_CELL])
    results: list[dict] = []

    def run(cell: Cell) -> None:
        results.append(cell._asdict() | scores(Stages(work_dir, budget, lambda line: None, threads=1), labels, cell))
        ordered = sorted(results, key=lambda result: (result['epochs'], list(ROWS).index(result['row'])))
        write_atomically(Path(work_dir) / 'photographs.json', json.dumps(ordered, indent=2) + '\n')
        write_atomically(Path(work_dir) / 'photographs.md', as_markdown(ordered) + '\n')
        print(results[-1], flush=True)

    with concurrent_runs(num_jobs) as pool:
        list(pool.map(run, planned_cells(num_seeds, epochs)))
    print(as_markdown(results))
    return results


def planned_cells(num_seeds: int, epochs: tuple[int, ...]) -> list[Cell]:
    """All cells, whole seeds first, short pretrainings before long ones."""
    pretrained = [row for row, options in ROWS.items() if options is not None]
    cells = []
    for seed in range(1, num_seeds + 1):
        cells += [Cell(seed, 0, row) for row in ROWS if row not in pretrained]
        cells += [Cell(seed, length, row) for length, row in product(epochs, pretrained)]
    return cells


def scores(stages: Stages, labels: Path, cell: Cell) -> dict[str, float]:
    """`top1` among the ten classes where there is pretraining, and the mIoU of each head, in percent."""
    folder = f'seed{cell.seed}/{cell.epochs}_epochs/{folder_name(cell.row)}'
    common = [f'randomness.seed={cell.seed}', *NO_VALIDATION]
    common += [f'{loader}_dataloader.num_workers=1' for loader in ('train', 'test')]
    result, initial = {}, ['model.backbone.init_cfg=None']

    def cached(name: str, config: str, options: list[str]) -> dict:
        run = f'{folder}/{name}'
        settings = {'options': options}
        return Runs(stages, [config]).cached(run, settings, lambda: stages.train_and_test(run, config, options))

    if cell.epochs:
        options = [*ROWS[cell.row], f'train_dataloader.dataset.label_store={labels}', *common]
        options += length(stages.budget.pretrain_iterations)
        result['top1'] = cached('pretrain', LENGTHS[cell.epochs], options)['top1']
        initial = [f'model.backbone.init_cfg.checkpoint={stages.checkpoint(f"{folder}/pretrain")}']
    for head in HEADS:
        options = [*initial, *common, *length(stages.budget.segmentation_iterations)]
        result[head] = cached(head, f'camvid/{head}', options)['mIoU']
    return result


def as_markdown(results: list[dict]) -> str:
    """The table of the docs: mean and standard deviation over the seeds that are there."""
    columns = {'top1': 'top-1, %'} | HEADS
    lines = [f'| epochs | pretraining | seeds | {" | ".join(columns.values())} |', '|---' * (len(columns) + 3) + '|']
    for epochs, row in product((0, *LENGTHS), ROWS):
        found = [result for result in results if (result['epochs'], result['row']) == (epochs, row)]
        if found:
            cells = [spread([result[score] for result in found if score in result]) for score in columns]
            lines.append(f'| {epochs} | {row} | {len(found)} | {" | ".join(cells)} |')
    return '\n'.join(lines)
