"""LabelWriter: nothing is lost, and nothing is mixed."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.numbered_maps import contents, finished, maps_of, maps_with_gaps, names, open_writer, write_all
from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelStore, LabelWriter
from tokenlabel.labels.store.background_writer import BackgroundWriter


def write_all_in_background(writer: LabelWriter, gaps: frozenset[int] = frozenset(), depth: int = 8) -> None:
    with BackgroundWriter(writer, depth) as background:
        for batch in writer.batches():
            background.write(batch, *map(torch.from_numpy, maps_with_gaps(writer.meta, batch, gaps)))


class Killed(BaseException):
    """Stands for SIGKILL."""


@contextmanager
def killed_after(calls: int) -> Iterator[None]:
    """The process dies at its `calls`-th write, sync or rename, before that takes effect."""
    left = calls

    def dying(call):
        def wrapped(*args):
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            return call(*args)

        return wrapped

    with (
        mock.patch('os.pwrite', dying(os.pwrite)),
        mock.patch('os.fsync', dying(os.fsync)),
        mock.patch('os.replace', dying(os.replace)),
        suppress(Killed),
    ):
        yield


@settings(max_examples=30)
@given(
    lives=st.lists(st.integers(1, 60), max_size=5),
    worlds=st.data(),
    gaps=st.frozensets(st.integers(0, 20), max_size=4),
    depth=st.integers(0, 4),
)
def test_killed_at_any_moment_and_resumed_by_any_number_of_processes_it_has_the_same_bytes(lives, worlds, gaps, depth):
    keys = names(21)
    # Real syncs would take nearly all of the time of this test.
    with tempfile.TemporaryDirectory() as folder, mock.patch('os.fsync', lambda file: None):
        straight, killed = Path(folder) / 'straight', Path(folder) / 'killed'
        finished(straight, keys, gaps)
        for calls in lives:
            world = worlds.draw(st.integers(1, 3))
            rank = worlds.draw(st.integers(0, world - 1))
            # Files are unbuffered: closing them on the way out writes nothing, it frees the locks as death does.
            with killed_after(calls), open_writer(killed, keys, rank=rank, world=world) as writer:
                if depth:
                    write_all_in_background(writer, gaps, depth)
                else:
                    write_all(writer, gaps)
        finished(killed, keys, gaps)
        assert contents(killed) == contents(straight)
        assert LabelStore(killed).meta['skipped'] == [keys[place] for place in sorted(gaps)]


def test_a_batch_is_written_once(tmp_path):
    with open_writer(tmp_path / 'store', names(21)) as writer:
        first, second, *_ = writer.batches()
        writer.write(first, *maps_of(writer.meta, first))
    with open_writer(tmp_path / 'store', names(21)) as writer:
        assert writer.num_done == len(first)
        assert next(writer.batches()) == second


def test_what_was_half_written_is_written_over(tmp_path):
    keys = names(8)
    with open_writer(tmp_path / 'torn', keys) as writer:
        batch = next(writer.batches())
        writer.write(batch, *maps_of(writer.meta, batch))
    with open(tmp_path / 'torn' / 'scores-00000.npy', 'r+b') as file:
        file.seek(-40, os.SEEK_END)
        file.write(b'x' * 40)
    finished(tmp_path / 'torn', keys)
    finished(tmp_path / 'straight', keys)
    assert contents(tmp_path / 'torn') == contents(tmp_path / 'straight')


@pytest.mark.parametrize('call', ['os.pwrite', 'os.fsync'])
def test_a_full_disk_is_one_sentence_and_the_store_resumes(tmp_path, call):
    keys = names(21)
    with open_writer(tmp_path / 'store', keys) as writer:
        batches = list(writer.batches())
        writer.write(batches[0], *maps_of(writer.meta, batches[0]))
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with (
            mock.patch(call, side_effect=full),
            pytest.raises(UserError, match=r'No space left on device.*resume'),
        ):
            writer.write(batches[1], *maps_of(writer.meta, batches[1]))
    finished(tmp_path / 'store', keys)
    finished(tmp_path / 'straight', keys)
    assert contents(tmp_path / 'store') == contents(tmp_path / 'straight')


def test_a_group_of_batches_waits_for_the_disk_once(tmp_path):
    syncs = []
    with open_writer(tmp_path / 'store', names(16), images_per_shard=16) as writer:
        batches = [(batch, *maps_of(writer.meta, batch)) for batch in writer.batches()]
        writer.write_all(batches[:1])
        with mock.patch('os.fsync', syncs.append):
            writer.write_all(batches[1:])
        assert len(syncs) == len(('scores', 'classes', 'sizes', 'progress'))
        writer.finalise()
    finished(tmp_path / 'straight', names(16), images_per_shard=16)
    assert contents(tmp_path / 'store') == contents(tmp_path / 'straight')


def test_of_a_group_of_batches_those_before_a_wrong_one_are_written(tmp_path):
    with open_writer(tmp_path / 'store', names(12)) as writer:
        batches = [(batch, *maps_of(writer.meta, batch)) for batch in writer.batches()]
        batches[1][1][0] = np.nan
        with pytest.raises(UserError, match='not finite'):
            writer.write_all(batches)
        assert writer.num_done == 4


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'annotator': {'name': 'other', 'digest': 'abc'}}, 'annotator name tiny instead of other'),
        ({'annotator': {'name': 'tiny', 'digest': 'def'}}, 'annotator digest abc instead of def'),
        ({'k': 2}, 'k 3 instead of 2'),
        ({'view': {'rule': 'squash', 'size': 64}, 'grid': (4, 4)}, 'view size 32 instead of 64'),
        ({'class_names': list('abcdefg')}, 'other class names'),
        ({'batch_size': 8}, 'batch_size 4 instead of 8'),
    ],
)
@pytest.mark.parametrize('done', [False, True])
def test_a_rerun_with_other_settings_is_refused(tmp_path, change, said, done):
    if done:
        finished(tmp_path / 'store', names(5))
    else:
        open_writer(tmp_path / 'store', names(5))
    with pytest.raises(UserError, match=said):
        open_writer(tmp_path / 'store', names(5), **change)


def test_a_rerun_with_other_images_is_refused(tmp_path):
    open_writer(tmp_path / 'store', names(5))
    with pytest.raises(UserError, match=r'5 there, 6 here, the first difference is class/0005\.jpg'):
        open_writer(tmp_path / 'store', names(6))


def test_a_rerun_takes_the_batch_size_of_the_store(tmp_path):
    open_writer(tmp_path / 'store', names(5), batch_size=3)
    with open_writer(tmp_path / 'store', names(5), batch_size=None) as writer:
        assert list(writer.batches()) == [range(3), range(3, 5)]


def test_the_order_of_the_image_list_does_not_matter(tmp_path):
    open_writer(tmp_path / 'store', names(5))
    assert list(open_writer(tmp_path / 'store', names(5)[::-1]).keys) == names(5)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / 'thesis.tex').write_text('')
    with pytest.raises(UserError, match=r'not a label store and not empty \(thesis\.tex\)'):
        open_writer(tmp_path, names(5))


@pytest.mark.parametrize(
    ('keys', 'changes', 'said'),
    [
        ([], {}, 'No images'),
        (['a', 'b', 'a'], {}, 'Image a is listed twice'),
        (['a', ''], {}, 'no name'),
        (['a'], {'k': 8}, "8 scores per location are more than the annotator's 7 classes"),
        (['a'], {'class_names': ['x']}, '1 class names for 7 classes'),
        (['a'], {'view': {'rule': 'fisheye', 'size': 32}}, "View rule 'fisheye' is unknown"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, keys, changes, said):
    with pytest.raises(UserError, match=said):
        open_writer(tmp_path / 'store', keys, **changes)
    assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e6])
def test_scores_that_half_precision_does_not_hold_name_their_image(tmp_path, value):
    with open_writer(tmp_path / 'store', names(4)) as writer:
        scores, classes, sizes = maps_of(writer.meta, range(4))
        scores[2, 0, 1, 1] = value
        with pytest.raises(UserError, match=r'class/0002\.jpg are not finite'):
            writer.write(range(4), scores, classes, sizes)


def test_batches_out_of_order_are_refused(tmp_path):
    with open_writer(tmp_path / 'store', names(8)) as writer:
        writer.write(range(4), *maps_of(writer.meta, range(4)))
        with pytest.raises(ValueError, match='row 4 is next'):
            writer.write(range(4), *maps_of(writer.meta, range(4)))


def test_finalising_too_early_is_refused(tmp_path):
    with (
        open_writer(tmp_path / 'store', names(8)) as writer,
        pytest.raises(UserError, match='lacks the maps of 8 images'),
    ):
        writer.finalise()


def test_resuming_on_a_truncated_shard_is_refused(tmp_path):
    with open_writer(tmp_path / 'store', names(8)) as writer:
        writer.write(range(4), *maps_of(writer.meta, range(4)))
    os.truncate(tmp_path / 'store' / 'scores-00000.npy', 200)
    with (
        open_writer(tmp_path / 'store', names(8)) as writer,
        pytest.raises(UserError, match=r'scores-00000\.npy is damaged'),
    ):
        write_all(writer)


def test_a_finished_store_has_nothing_left_to_write(tmp_path):
    finished(tmp_path / 'store', names(8))
    writer = open_writer(tmp_path / 'store', names(8))
    assert writer.complete
    assert list(writer.batches()) == []
    assert writer.num_done == 8
