"""`tokenlabel test` on segmentation models: scores, reports, and checkpoints and data that do not fit."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.evaluation import worst_images
from tests.commands import run_command
from tests.places import ROOT
from tokenlabel.engine.config.mmseg_scope import enable_mmseg_scope
from tokenlabel.engine.runner import Runner

pytestmark = pytest.mark.distributions

CONFIG = """
_base_ = ['{base}']
model = dict(
    backbone=dict(embed_dim=16, depth=4, num_heads=2, stem_width=8, init_cfg=None),
    neck=dict(in_channels=16, out_channels=16),
    decode_head=dict(in_channels=[16] * 4, channels=16, num_classes={classes}),
    auxiliary_head=dict(in_channels=16, channels=8, num_classes={classes}),
)
dataset = dict(data_root='{scenes}/ade')
test_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset)
test_evaluator = dict(type='{metric}', iou_metrics=['mIoU', 'mFscore'])
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(32, 32)), dict(type='Resize', scale=(64, 64))],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
"""


@pytest.fixture
def write_config(scenes, tmp_path):
    """Writes a tiny variant of the demo's UperNet and returns its path."""

    def write(name='tiny.py', metric='StreamingIoU', classes=11, base='configs/demo/upernet.py') -> Path:
        text = CONFIG.format(base=ROOT / base, metric=metric, classes=classes, scenes=scenes)
        (tmp_path / name).write_text(text.replace('    auxiliary_head', '    # ') if 'fpn' in base else text)
        return tmp_path / name

    return write


@pytest.fixture
def write_checkpoint(tmp_path):
    """Writes a checkpoint of a config's model with random weights and returns its path."""

    def write(config: Path, name='model.pth', **meta) -> Path:
        enable_mmseg_scope()
        init_default_scope('mmseg')
        torch.manual_seed(0)
        model = MODELS.build(Config.fromfile(config).model)
        torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': meta}}, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def evaluate(tmp_path):
    """Runs `tokenlabel test`."""

    def run(*words, log_level='ERROR') -> int:
        words = [*words, '--work-dir', tmp_path / 'run', '--cfg-options', f'log_level={log_level}']
        return run_command('test', *words)

    return run


@pytest.fixture
def refused(evaluate, capsys):
    """Runs `tokenlabel test` where it has to fail and returns the one sentence that it says."""

    def run(*words) -> str:
        assert evaluate(*words) == 2
        [sentence] = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
        return sentence

    return run


def rows_of(path: Path) -> list[dict]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_a_report_has_the_scores_of_the_evaluation(evaluate, write_config, write_checkpoint, scenes, tmp_path):
    config = write_config(metric='IoUMetric')
    checkpoint = write_checkpoint(config)
    evaluate(config, checkpoint, '--out', tmp_path / 'plain.json')
    evaluate(config, checkpoint, '--out', tmp_path / 'metrics.json', '--report', tmp_path / 'report')
    scores = json.loads((tmp_path / 'metrics.json').read_text())
    assert scores == json.loads((tmp_path / 'plain.json').read_text())

    report = json.loads((tmp_path / 'report/metrics.json').read_text())
    assert report['metrics'] == scores
    assert report['config'] == str(config) and report['checkpoint'] == str(checkpoint)
    ious = [one['IoU'] for one in report['classes'] if one['IoU'] is not None]
    assert np.mean(ious) == pytest.approx(scores['mIoU'], abs=0.01)
    images = rows_of(tmp_path / 'report/images.csv')
    assert sorted(Path(row['image']) for row in images) == sorted((scenes / 'ade/images/validation').iterdir())
    assert sum(int(row['pixels']) for row in images) == sum(one['pixels'] for one in report['classes'])


@pytest.mark.parametrize('flags', [[], ['--tta']])
def test_the_worst_images_are_drawn_as_the_test_saw_them(
    evaluate, write_config, write_checkpoint, tmp_path, monkeypatch, flags
):
    drawn = []
    draw = worst_images.examples_figure

    def keep(examples, *names):
        drawn.extend(examples)
        return draw(examples, *names)

    monkeypatch.setattr('mmseg_ext.evaluation.report.examples_figure', keep)
    config = write_config()
    evaluate(config, write_checkpoint(config), *flags, '--report')
    report = tmp_path / 'run/report'
    rows = rows_of(report / 'images.csv')
    assert [one.path for one in drawn] == [row['image'] for row in rows][:8]
    for one, row in zip(drawn, rows, strict=True):
        labelled = one.ground_truth < 11
        assert labelled.sum() == int(row['pixels'])
        assert (one.prediction == one.ground_truth)[labelled].sum() == int(row['correct'])
    assert json.loads((report / 'metrics.json').read_text())['test_time_augmentation'] == bool(flags)


def test_a_test_that_ends_early_leaves_neither_metrics_nor_report(
    evaluate, write_config, write_checkpoint, tmp_path, monkeypatch
):
    def stop(runner):
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, 'test', stop)
    config = write_config()
    written = ['--out', tmp_path / 'metrics.json', '--report', tmp_path / 'report']
    assert evaluate(config, write_checkpoint(config), *written) == 130
    assert not (tmp_path / 'metrics.json').exists() and not (tmp_path / 'report').exists()


def test_a_report_needs_a_confusion_matrix_and_segmentation(refused, write_config, tmp_path):
    other = write_config(metric='CityscapesMetric')
    assert 'without a confusion matrix' in refused(other, tmp_path / 'none.pth', '--report')
    pretraining = ROOT / 'configs/demo/pretrain.py'
    assert '--report is only for segmentation' in refused(pretraining, tmp_path / 'none.pth', '--report')
    assert '--real is only for ImageNet classifiers' in refused(write_config(), tmp_path / 'none.pth', '--real')


def test_a_checkpoint_of_other_classes_or_another_head_is_told(refused, write_config, write_checkpoint, tmp_path):
    config = write_config()
    checkpoint = write_checkpoint(write_config('other.py', classes=7), 'seven.pth')
    assert 'seven.pth was trained for 7 classes and the config has 11' in refused(config, checkpoint)

    weights = torch.load(write_checkpoint(config), weights_only=True)['state_dict']
    other_head = {name.replace('decode_head.bottleneck', 'decode_head.convs.0'): x for name, x in weights.items()}
    torch.save({'state_dict': other_head}, tmp_path / 'head.pth')
    assert 'head.pth has another decode head than the config' in refused(config, tmp_path / 'head.pth')

    backbone = {name: x for name, x in weights.items() if name.startswith('backbone.')}
    torch.save({'state_dict': backbone}, tmp_path / 'backbone.pth')
    assert 'has no decode head' in refused(config, tmp_path / 'backbone.pth')


def test_the_original_averages_views_of_batched_windows_as_ours_does(
    evaluate, write_config, write_checkpoint, tmp_path
):
    config = write_config()
    checkpoint = write_checkpoint(config)
    scores = []
    for kind in ('BatchedTTAModel', 'SegTTAModel'):
        config.write_text(config.read_text() + f"tta_model = dict(_delete_=True, type='{kind}')\n")
        evaluate(config, checkpoint, '--tta', '--out', tmp_path / f'{kind}.json')
        scores.append(json.loads((tmp_path / f'{kind}.json').read_text()))
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_a_truncated_checkpoint_is_told(refused, write_config, write_checkpoint):
    config = write_config()
    checkpoint = write_checkpoint(config)
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    assert 'model.pth' in refused(config, checkpoint)


def test_other_class_names_in_the_checkpoint_are_warned_about(evaluate, write_config, write_checkpoint, capfd):
    config = write_config('letters.py')  # a name of its own: runs of one name and second share a logger
    names = ['background', *(f'letter_{i}' for i in range(10))]
    evaluate(config, write_checkpoint(config, classes=names), log_level='WARNING')
    assert 'trained on other classes than the test data has (letter_0 and digit_0)' in ''.join(capfd.readouterr())
