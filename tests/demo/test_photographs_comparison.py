"""Ways to pretrain on photographs, compared: order and settings of the runs, cache, table, and the smallest run."""

import json
import os
from pathlib import Path

import pytest

from tokenlabel.demo import photographs_comparison
from tokenlabel.demo.comparison import OURS
from tokenlabel.demo.photographs import ANNOTATOR
from tokenlabel.demo.photographs_comparison import (
    ROWS,
    Cell,
    as_markdown,
    compare_photographs,
    planned_cells,
    scores,
)
from tokenlabel.demo.stages import SMALLEST, Stages

DATA = os.environ.get('TOKENLABEL_TEST_DATA')


@pytest.fixture
def stages(tmp_path, monkeypatch):
    """Stages that record `(run, config, options)` in `.done` instead of training."""
    stages = Stages(tmp_path, SMALLEST, threads=1)
    stages.done = []

    def train_and_test(run, config, options):
        stages.done.append((run, config, options))
        return {'top1': 60.0} if config.startswith('imagenette') else {'mIoU': 40.0}

    monkeypatch.setattr(stages, 'train_and_test', train_and_test)
    monkeypatch.setattr(stages, 'checkpoint', lambda run: Path(run, 'last.pth'))
    return stages


def test_whole_seeds_come_first_and_short_pretrainings_before_long_ones():
    cells = planned_cells(2, (10, 40))
    assert len(cells) == len(set(cells)) == 2 * (1 + 2 * (len(ROWS) - 1))
    assert [cell.seed for cell in cells] == [1] * 9 + [2] * 9
    assert [cell.epochs for cell in cells[:9]] == [0] + [10] * 4 + [40] * 4


def test_a_cell_pretrains_and_trains_every_head_on_it_once(stages):
    cell = Cell(3, 40, 'token labels, released geometry')
    for _ in range(2):
        assert scores(stages, Path('store'), cell) == {'top1': 60.0, 'linear': 40.0, 'fpn': 40.0, 'upernet': 40.0}
    runs, configs, options = zip(*stages.done, strict=True)
    folder = 'seed3/40_epochs/token_labels_released_geometry'
    assert runs == tuple(f'{folder}/{name}' for name in ('pretrain', 'linear', 'fpn', 'upernet'))
    assert configs == ('imagenette/pretrain_40ep', 'camvid/linear', 'camvid/fpn', 'camvid/upernet')
    assert {'model.targets.geometry=released', 'train_dataloader.dataset.label_store=store'} <= set(options[0])
    assert all('randomness.seed=3' in of_run for of_run in options)
    assert all(f'model.backbone.init_cfg.checkpoint={folder}/pretrain/last.pth' in of_head for of_head in options[1:])


def test_without_pretraining_the_heads_start_from_random_weights(stages):
    assert set(scores(stages, Path('store'), Cell(1, 0, 'no pretraining'))) == {'linear', 'fpn', 'upernet'}
    assert all('model.backbone.init_cfg=None' in options for _, _, options in stages.done)


def test_the_table_has_the_mean_over_the_seeds_of_each_row():
    def result(seed, epochs, row, **values):
        return {'seed': seed, 'epochs': epochs, 'row': row} | values

    table = as_markdown(
        [
            result(1, 10, 'image labels', top1=60.0, linear=30.0, fpn=40.0, upernet=50.0),
            result(2, 10, 'image labels', top1=62.0, linear=30.0, fpn=40.0, upernet=50.0),
            result(1, 0, 'no pretraining', linear=10.0, fpn=20.0, upernet=30.0),
        ]
    )
    assert table.splitlines()[2:] == [
        '| 0 | no pretraining | 1 | - | 10.0 | 20.0 | 30.0 |',
        '| 10 | image labels | 2 | 61.0 ± 1.4 | 30.0 ± 0.0 | 40.0 ± 0.0 | 50.0 ± 0.0 |',
    ]


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason='TOKENLABEL_TEST_DATA names no folder')
def test_the_comparison_runs_at_its_smallest(tmp_path, monkeypatch):
    for folder in ('imagenette/train/*', 'imagenette/val/*', 'camvid/*/train', 'camvid/*/val'):
        for full in Path(DATA).glob(folder):
            few = tmp_path / 'data' / full.relative_to(DATA)
            few.mkdir(parents=True)
            for file in sorted(full.iterdir())[:8]:
                (few / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(photographs_comparison, 'ROWS', {name: ROWS[name] for name in ('no pretraining', OURS)})
    annotator = ['--annotator', ANNOTATOR, '--checkpoint', f'{DATA}/weights/tf_efficientnet_lite0.safetensors']
    results = compare_photographs(tmp_path / 'runs', SMALLEST, annotator, num_seeds=1, num_jobs=1, epochs=(40,))
    assert results == json.loads((tmp_path / 'runs/photographs.json').read_text())
    assert [result['row'] for result in results] == ['no pretraining', OURS]
    assert f'| 40 | {OURS} | 1 |' in (tmp_path / 'runs/photographs.md').read_text()
