"""Ways to pretrain on the digit scenes, compared: settings of the runs, the choice of rates, cache and tables."""

import pytest

from tokenlabel.demo.comparison import OURS, ROWS, Row, as_markdown, difference, spread
from tokenlabel.demo.stages import SMALLEST, Stages


@pytest.fixture
def done(monkeypatch):
    """`(run, options)` of each training in place of the training; 0.1 and 0.003 are the better rates."""
    done = []

    def pretrain(stages, run, options):
        done.append((run, options))
        return {'top1': 50.0}

    def segment(stages, head, pretrained, run, options):
        done.append((run, options))
        return {'mIoU': 40.0 if '=0.1' in options[0] or '=0.003' in options[0] else 30.0}

    monkeypatch.setattr(Stages, 'pretrain', pretrain)
    monkeypatch.setattr(Stages, 'segment', segment)
    return done


def test_every_row_pretrains_alike_but_for_its_labels(tmp_path, done):
    for row in ROWS:
        Row(tmp_path, SMALLEST, row)._pretrain(1)
    common = [set(options) - set(ROWS[row]) for row, (_, options) in zip(list(ROWS)[1:], done, strict=True)]
    assert all(options == common[0] for options in common)
    assert {'train_dataloader.dataset.transform.scale=(0.2,1.0)', 'randomness.seed=1'} <= common[0]


def test_rates_are_chosen_by_the_tuning_seed_alone_and_runs_are_kept(tmp_path, done):
    for _ in range(2):
        rates = Row(tmp_path, SMALLEST, OURS).tune()
        assert rates == {'upernet': 0.1, 'fpn': 0.003}
        assert Row(tmp_path, SMALLEST, OURS).run(1, rates) == {'top1': 50.0, 'upernet': 40.0, 'fpn': 40.0}
    folder = 'comparison/token_labels_exact'
    assert [run.removeprefix(f'{folder}/') for run, _ in done] == [
        'pretrain_seed0',
        'upernet_rate0.01_seed0',
        'upernet_rate0.1_seed0',
        'fpn_rate0.001_seed0',
        'fpn_rate0.003_seed0',
        'pretrain_seed1',
        'upernet_rate0.1_seed1',
        'fpn_rate0.003_seed1',
    ]


def test_without_pretraining_there_is_no_top1(tmp_path, done):
    assert set(Row(tmp_path, SMALLEST, 'no pretraining').run(1, {'fpn': 0.003})) == {'fpn'}


def test_the_tables_have_means_deviations_and_differences_with_their_spread():
    def row(*miou: float) -> dict:
        return {'rates': {'upernet': 0.1, 'fpn': 0.003}, 'top1': [], 'upernet': list(miou), 'fpn': list(miou)}

    rows = {OURS: row(40.0, 42.0), 'no pretraining': row(10.0, 12.0), 'image labels': row(39.0, 43.0)}
    lines = as_markdown({'seeds': 2, 'rows': rows}).splitlines()
    assert f'| {OURS} | - | 41.0 ± 1.4 | 41.0 ± 1.4 | 0.1 / 0.003 |' in lines
    assert '| no pretraining | - | +30.0 | +30.0 |' in lines
    assert '| image labels | - | +0.0 (=) | +0.0 (=) |' in lines


def test_one_seed_has_neither_spread_nor_difference():
    assert spread([40.0]) == '40.0'
    assert spread([]) == difference([40.0], [30.0]) == '-'
