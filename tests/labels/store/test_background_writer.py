"""BackgroundWriter."""

import errno
import os
import threading
from pathlib import Path
from unittest import mock

import pytest
import torch

from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelStore, LabelWriter
from tokenlabel.labels.store.background_writer import BackgroundWriter

KEYS = [f'{number:02d}.jpg' for number in range(24)]


def open_writer(path: Path) -> LabelWriter:
    view = {'rule': 'squash', 'size': 32}
    return LabelWriter(path, KEYS, annotator={}, num_classes=7, k=3, grid=(2, 2), view=view, batch_size=4)


def maps_of(batch: range) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores that are the images' places in the store, class 2 throughout, images of 100 x 100 pixels."""
    scores = torch.tensor(batch, dtype=torch.float16).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return scores, torch.full((len(batch), 3, 2, 2), 2, dtype=torch.int32), torch.full((len(batch), 2), 100)


def test_batches_are_written_in_order_and_reported(tmp_path):
    written = []
    with open_writer(tmp_path / 'store') as writer:
        with BackgroundWriter(writer) as background:
            for batch in writer.batches():
                background.write(batch, *maps_of(batch), written=lambda batch=batch: written.append(batch.start))
        writer.finalise()
    assert written == [0, 4, 8, 12, 16, 20]
    store = LabelStore(tmp_path / 'store')
    assert [int(store[place].scores[0, 0, 0]) for place in range(24)] == list(range(24))


def test_those_that_wait_are_written_as_a_group(tmp_path):
    arrived, groups = threading.Event(), []
    with open_writer(tmp_path / 'store') as writer:
        write_all = writer.write_all
        writer.write_all = lambda batches: (groups.append(len(batches)), write_all(batches))
        with BackgroundWriter(writer) as background:
            for number, batch in enumerate(writer.batches()):
                background.write(batch, *maps_of(batch), wait=arrived.wait if number == 0 else lambda: None)
            arrived.set()
    assert sum(groups) == 6
    assert len(groups) < 6


def test_what_was_handed_in_before_an_interruption_is_on_disk(tmp_path):
    with open_writer(tmp_path / 'store') as writer:
        with pytest.raises(KeyboardInterrupt), BackgroundWriter(writer) as background:
            for batch in writer.batches():
                background.write(batch, *maps_of(batch))
            raise KeyboardInterrupt
        assert writer.num_done == 24


@pytest.mark.parametrize('call', ['os.pwrite', 'os.fsync'])
def test_a_full_disk_is_raised_where_batches_are_handed_in(tmp_path, call):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    failed = threading.Event()

    def hand_in() -> None:
        with BackgroundWriter(writer, depth=1) as background, mock.patch(call, side_effect=full):
            for batch in writer.batches():
                background.write(batch, *maps_of(batch))
            failed.set()

    with open_writer(tmp_path / 'store') as writer:
        with pytest.raises(UserError, match=r'No space left on device.*run again to resume'):
            hand_in()
        assert not failed.is_set()
    with open_writer(tmp_path / 'store') as writer:
        for batch in writer.batches():
            writer.write(batch, *(array.numpy() for array in maps_of(batch)))
        writer.finalise()
    assert len(LabelStore(tmp_path / 'store')) == 24


def test_an_error_with_the_last_batch_is_raised_at_the_end(tmp_path):
    with (
        open_writer(tmp_path / 'store') as writer,
        pytest.raises(UserError, match=r'scores of 20\.jpg are not finite'),
        BackgroundWriter(writer) as background,
    ):
        for batch in writer.batches():
            scores, classes, sizes = maps_of(batch)
            background.write(batch, scores / (batch.start < 20), classes, sizes)
