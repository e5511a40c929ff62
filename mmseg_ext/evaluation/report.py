"""The report of an evaluation: numbers, a table of classes, the confusion matrix, and the worst images."""

import csv
import importlib
import io
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner

from mmseg_ext.evaluation.confusion_picture import confusion_figure
from mmseg_ext.evaluation.per_class import ClassScores, class_scores, weakest_first
from mmseg_ext.evaluation.worst_images import Example, examples_figure, segment_again, worst_first
from tokenlabel.errors import UserError
from tokenlabel.files.output_checks import check_output_file
from tokenlabel.files.reading import printable
from tokenlabel.files.writing import disk_errors, write_atomically, write_json
from tokenlabel.pictures.labels import save_figure

NUM_WORST = 8
PACKAGES = ('tokenlabel', 'torch', 'torchvision', 'timm', 'mmengine', 'mmcv', 'mmseg', 'numpy')
MEASURING = ('IoUMetric', 'StreamingIoU', 'mmseg.IoUMetric', 'mmseg.StreamingIoU')
SCORES = 'metrics.json'
WORST = 'worst_images.png'
FILES = ('classes.md', 'classes.csv', 'confusion.csv', 'confusion.png', 'images.csv', WORST, SCORES)


def measure_confusions(config: Config, path: str | Path) -> None:
    """Makes the test evaluator of a config keep a confusion matrix and a score per image, for the report.

    Replaces `IoUMetric` by `StreamingIoU` with the same arguments.

    Args:
        config: Config, changed in place.
        path: Path of the config, for messages.

    Raises:
        UserError: The evaluator has neither metric, or only writes predictions.
    """
    evaluator = config.get('test_evaluator') or []
    for metric in [evaluator] if isinstance(evaluator, dict) else evaluator:
        if metric.get('type') in MEASURING:
            if metric.get('format_only'):
                raise UserError(
                    f'Config {path} sets format_only, which writes predictions and scores none: leave out --report, '
                    'or format_only.'
                )
            metric.update(type='StreamingIoU', per_image=True)
            return
    raise UserError(
        f'Config {path} evaluates without a confusion matrix, from which a report is made: use '
        "test_evaluator=dict(type='StreamingIoU'), or leave out --report."
    )


def check_report(folder: str | Path) -> None:
    """Checks before the test that a report can be written to a folder.

    Raises:
        UserError: it cannot.
    """
    for name in FILES:
        check_output_file(Path(folder, name))


def report_on(runner: Runner, folder: str | Path, metrics: Mapping[str, float], about: Mapping[str, object]) -> None:
    """Writes the report of a runner after its test; segments the worst images again.

    Args:
        runner: Runner whose config was changed by `measure_confusions`.
        folder: Folder of the report.
        metrics: Result of the test.
        about: Other entries of `metrics.json`.
    """
    metric = next(one for one in runner.test_loop.evaluator.metrics if hasattr(one, 'confusion'))
    worst = segment_again(runner, worst_first(metric.images)[:NUM_WORST])
    write_report(folder, metric, metrics, worst, about)


def write_report(
    folder: str | Path,
    metric: BaseMetric,
    metrics: Mapping[str, float],
    worst: Sequence[Example] = (),
    about: Mapping[str, object] | None = None,
) -> None:
    """Writes a report. Each file is written atomically; `metrics.json` is the last one and marks the report complete.

    `metrics.json`: overall scores, `about`, versions, and the scores of every class (null where there is none);
    `classes.md` and `classes.csv`: a row per class, the weakest first; `confusion.csv` and `confusion.png`: the matrix
    in pixels and as a picture; `images.csv`: a row per image, the worst first; `worst_images.png`: image, ground truth
    and prediction of `worst`. Scores and shares are in percent.

    Args:
        folder: Folder of the report, created if missing; an existing report is replaced.
        metric: Metric after `evaluate`, with `confusion` [C, C], `images` and `dataset_meta`, as `StreamingIoU`.
        metrics: Overall scores by name.
        worst: The images to show.
        about: Other entries of `metrics.json`.
    """
    folder = Path(folder)
    names, palette = metric.dataset_meta['classes'], metric.dataset_meta.get('palette')
    scores = class_scores(metric.confusion, names)
    with disk_errors(folder):
        (folder / SCORES).unlink(missing_ok=True)
    write_atomically(folder / 'classes.md', classes_table(scores, metrics))
    write_atomically(folder / 'classes.csv', _csv(list(asdict(scores[0])), map(_values, weakest_first(scores))))
    counts = ([name, *row] for name, row in zip(names, metric.confusion.tolist(), strict=True))
    write_atomically(folder / 'confusion.csv', _csv(['ground truth \\ prediction', *names], counts))
    save_figure(confusion_figure(metric.confusion, names), folder / 'confusion.png')
    rows = (
        [printable(one['img_path']), 100 * one['IoU'], one['pixels'], one['correct']]
        for one in worst_first(metric.images)
    )
    write_atomically(folder / 'images.csv', _csv(['image', 'IoU', 'pixels', 'correct'], rows))
    if worst:
        save_figure(examples_figure(worst, names, palette), folder / WORST)
    else:
        (folder / WORST).unlink(missing_ok=True)
    summary = {
        **(about or {}),
        'metrics': dict(metrics),
        'images': len(metric.images),
        'classes': [asdict(one) for one in scores],
        'worst_images': [{'image': example.path, 'IoU': example.IoU} for example in worst],
        'versions': versions(),
    }
    write_json(folder / SCORES, summary)


def classes_table(scores: Sequence[ClassScores], metrics: Mapping[str, float]) -> str:
    """A Markdown table of the classes, the weakest first, aligned for reading as plain text."""
    head = ('class', 'IoU', 'accuracy', 'precision', 'pixels, %', 'most often taken for')
    rows = []
    for one in weakest_first(scores):
        if one.is_in_data:
            share = f'{one.confused_share:.1f} %' if one.confused_share >= 0.05 else '< 0.1 %'
            remark = f'{one.confused_with} ({share})' if one.confused_with else ''
        else:
            remark = 'not in the data' + (f', pixels taken for it: {one.predicted}' if one.predicted else '')
        numbers = (one.IoU, one.accuracy, one.precision, one.share)
        rows.append((one.name, *('-' if isnan(number) else f'{number:.2f}' for number in numbers), remark))
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    left = (0, len(head) - 1)

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f'| {" | ".join(padded)} |'

    rule = '|'.join('-' * (width + 2) if i in left else '-' * (width + 1) + ':' for i, width in enumerate(widths))
    overall = ', '.join(f'{name} {value:.2f}' for name, value in metrics.items())
    return '\n'.join([f'{overall} (percent)', '', line(head), f'|{rule}|', *map(line, rows)]) + '\n'


def versions() -> dict[str, str]:
    """Versions of the packages that affect an evaluation, and the device."""
    found = {name: getattr(importlib.import_module(name), '__version__', 'unknown') for name in PACKAGES}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'
    return {'python': platform.python_version(), **found, 'device': device}


def _values(one: ClassScores) -> list:
    """A row of `classes.csv`; missing values are empty cells."""
    values = asdict(one).values()
    return ['' if value is None or (isinstance(value, float) and isnan(value)) else value for value in values]


def _csv(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
