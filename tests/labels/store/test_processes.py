"""LabelWriter in several processes."""

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.numbered_maps import contents, finished, maps_of, names, open_writer, write_all
from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelStore


def test_processes_share_the_shards(tmp_path):
    writers = [open_writer(tmp_path / 'store', names(35), rank=rank, world=3) for rank in range(3)]
    left = {writer: writer.batches() for writer in writers}
    places = []
    while left:
        for writer in list(left):
            batch = next(left[writer], None)
            if batch is None:
                del left[writer]
            else:
                writer.write(batch, *maps_of(writer.meta, batch))
                places += batch
    assert sorted(places) == list(range(35))
    for writer in writers:
        writer.finalise()
    finished(tmp_path / 'alone', names(35))
    assert contents(tmp_path / 'store') == contents(tmp_path / 'alone')


def test_a_process_begins_with_its_own_shards_and_ends_with_those_that_others_come_to_last(tmp_path):
    with open_writer(tmp_path / 'store', names(48), rank=1, world=3) as writer:
        assert [batch.start // 8 for batch in writer.batches()][::2] == [1, 4, 5, 3, 2, 0]


def test_what_another_process_has_claimed_is_left_to_it_until_it_is_gone(tmp_path):
    with open_writer(tmp_path / 'store', names(16)) as one, open_writer(tmp_path / 'store', names(16)) as other:
        next(one.batches())
        assert [batch.start for batch in other.batches()] == [8, 12]
        other.close()
        assert other.others_at_work()
        one.close()
        assert not other.others_at_work()
        assert len(list(other.batches())) == 4


def test_without_locks_a_process_keeps_to_its_own_shards(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr('fcntl.flock', no_locks)
    writers = [open_writer(tmp_path / 'store', names(24), rank=rank, world=2) for rank in range(2)]
    assert [[batch.start for batch in writer.batches()] for writer in writers] == [[0, 4, 16, 20], [8, 12]]
    for writer in writers:
        assert not writer.others_at_work()
        write_all(writer)
    writers[0].finalise()
    finished(tmp_path / 'alone', names(24))
    assert contents(tmp_path / 'store') == contents(tmp_path / 'alone')


def test_processes_may_begin_and_finalise_at_once(tmp_path):
    keys, start = names(64), threading.Barrier(4)

    def live(rank: int) -> None:
        start.wait()
        with open_writer(tmp_path / 'store', keys, rank=rank, world=4) as writer:
            write_all(writer)
            while writer.num_done < len(keys):
                time.sleep(0.001)
            writer.finalise()

    # Threads do for processes: locks belong to open files.
    with ThreadPoolExecutor(4) as pool:
        assert [life.result() for life in [pool.submit(live, rank) for rank in range(4)]] == [None] * 4
    finished(tmp_path / 'alone', keys)
    assert contents(tmp_path / 'store') == contents(tmp_path / 'alone')


def test_a_second_finalise_sweeps_up_and_changes_nothing(tmp_path):
    finished(tmp_path / 'store', names(8))
    before = contents(tmp_path / 'store')
    writer = open_writer(tmp_path / 'store', names(8))
    (tmp_path / 'store' / 'progress-00000').touch()
    writer.finalise()
    assert contents(tmp_path / 'store') == before


def test_two_processes_cannot_write_the_same_shard(tmp_path):
    with open_writer(tmp_path / 'store', names(8)) as one, open_writer(tmp_path / 'store', names(8)) as other:
        first, second = one.batches()
        one.write(first, *maps_of(one.meta, first))
        with pytest.raises(UserError, match='Another process is writing shard 0'):
            other.write(first, *maps_of(one.meta, first))
        one.write(second, *maps_of(one.meta, second))
        one.finalise()
        with pytest.raises(UserError, match='Another process is writing shard 0'):
            other.write(first, *maps_of(one.meta, first))
    assert len(LabelStore(tmp_path / 'store')) == 8
