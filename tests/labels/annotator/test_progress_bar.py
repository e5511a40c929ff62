"""What is shown while images are being annotated."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tokenlabel.labels.annotator import progress_bar
from tokenlabel.labels.annotator.annotation import Tally
from tokenlabel.labels.annotator.progress_bar import AnnotationBar
from tokenlabel.labels.store import LabelWriter


def open_writer(path: Path, rank: int = 0) -> LabelWriter:
    keys, view = [f'{number:02d}.jpg' for number in range(8)], {'rule': 'squash', 'size': 32}
    options = {'annotator': {}, 'num_classes': 7, 'k': 3, 'grid': (2, 2), 'view': view}
    return LabelWriter(path, keys, batch_size=2, images_per_shard=4, rank=rank, world=2, **options)


def write(writer: LabelWriter, batch: range) -> None:
    zeros = np.zeros((len(batch), 3, 2, 2))
    writer.write(batch, zeros, zeros, np.full((len(batch), 2), 32))


@pytest.fixture
def often(monkeypatch) -> None:
    monkeypatch.setattr(progress_bar, 'SECONDS_BETWEEN_UPDATES', 0)
    monkeypatch.setattr(progress_bar, 'SECONDS_BETWEEN_LINES', 0)


def test_the_bar_counts_what_every_process_has_written(tmp_path, often):
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=120)
    writer, other = (open_writer(tmp_path / 'store', rank) for rank in range(2))
    with writer, other, AnnotationBar(writer, console) as bar:
        write(writer, next(writer.batches()))
        write(other, next(other.batches()))
        bar.finish(Tally(images=2, labelled=Counter({3: 2}), correct=Counter({3: 1})))
    assert '4/8' in said.getvalue()
    assert 'top-1 50.0 % of 2 images' in said.getvalue()


def test_a_log_file_gets_lines(tmp_path, often):
    said = io.StringIO()
    with open_writer(tmp_path / 'store') as writer, AnnotationBar(writer, Console(file=said, width=120)) as bar:
        write(writer, next(writer.batches()))
        bar.update(Tally(images=2, labelled=Counter({3: 2}), correct=Counter({3: 1})))
    line = said.getvalue().splitlines()[0]
    assert line.startswith('2 of 8 maps, ')
    assert line.endswith('images/s top-1 50.0 % of 2 images')


def test_the_other_processes_show_nothing(tmp_path, often):
    said = io.StringIO()
    with open_writer(tmp_path / 'store') as writer, AnnotationBar(writer, Console(file=said), shown=False) as bar:
        bar.update(Tally())
        bar.finish(Tally())
    assert said.getvalue() == ''
