"""LabelStore and LabelWriter."""

import errno
import json
import os
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlabel.errors import UserError
from tokenlabel.labels.background_writer import BackgroundWriter
from tokenlabel.labels.store import LabelStore, LabelWriter
from tokenlabel.labels.store_files import file_digest

# Any name a file system may give: everything but NUL, with bytes that are not UTF-8 as lone surrogates.
LETTER = st.characters(exclude_characters='\0', exclude_categories=['Cs']) | st.characters(
    min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=['Cs']
)
NAME = st.text(LETTER, min_size=1, max_size=12)


def names(count: int) -> list[str]:
    return [f'class/{number:04d}.jpg' for number in range(count)]


def open_writer(path: Path, keys: list[str], **changes) -> LabelWriter:
    options = {
        'annotator': {'name': 'tiny', 'digest': 'abc'},
        'num_classes': 7,
        'k': 3,
        'grid': (2, 2),
        'view': {'rule': 'squash', 'size': 32},
        'batch_size': 4,
        'images_per_shard': 8,
    }
    return LabelWriter(path, keys, **(options | changes))


def maps_of(meta: dict, batch: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps that depend on the image's place in the store alone."""
    shape = (len(batch), meta['k'], *meta['grid'])
    place = np.asarray(batch).reshape(-1, 1, 1, 1)
    offsets = np.arange(np.prod(shape[1:])).reshape(1, *shape[1:])
    scores = (place * 0.5 - offsets * 0.25) % 50
    classes = (place * 31 + offsets) % meta['num_classes']
    sizes = np.stack([np.asarray(batch) + 100, np.asarray(batch) + 200], axis=1)
    return scores, classes, sizes


def maps_with_gaps(meta: dict, batch: range, gaps: frozenset[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same, without a map for the images at `gaps`."""
    maps = maps_of(meta, batch)
    for array in maps:
        array[[place - batch.start for place in gaps if place in batch]] = 0
    return maps


def write_all(writer: LabelWriter, gaps: frozenset[int] = frozenset()) -> None:
    for batch in writer.batches():
        writer.write(batch, *maps_with_gaps(writer.meta, batch, gaps))


def write_all_in_background(writer: LabelWriter, gaps: frozenset[int] = frozenset(), depth: int = 8) -> None:
    with BackgroundWriter(writer, depth) as background:
        for batch in writer.batches():
            background.write(batch, *map(torch.from_numpy, maps_with_gaps(writer.meta, batch, gaps)))


def finished(path: Path, keys: list[str], gaps: frozenset[int] = frozenset(), **changes) -> LabelStore:
    with open_writer(path, keys, **changes) as writer:
        write_all(writer, gaps)
        writer.finalise()
    return LabelStore(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


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


@settings(max_examples=15)
@given(
    keys=st.lists(NAME, min_size=1, max_size=20, unique_by=lambda key: key.encode('utf-8', 'surrogateescape')),
    k=st.integers(1, 5),
    side=st.integers(1, 3),
    num_classes=st.sampled_from([5, 2048, 65_536, 65_537, 3_000_000]),
    batch_size=st.integers(2, 7),
)
def test_what_is_written_is_read(keys, k, side, num_classes, batch_size):
    with tempfile.TemporaryDirectory() as folder:
        options = {'k': k, 'grid': (side, side), 'num_classes': num_classes, 'batch_size': batch_size}
        store = finished(Path(folder) / 'ein Ordner für Karten', keys, **options)
        scores, classes, sizes = maps_of(store.meta, range(len(keys)))
        encoded = [key.encode('utf-8', 'surrogateescape') for key in keys]
        rows = store.indices(keys)
        assert [store.keys[row].encode('utf-8', 'surrogateescape') for row in rows] == encoded
        for row in rows:
            label_map = store[int(row)]
            np.testing.assert_array_equal(label_map.scores, scores[row].astype(np.float16))
            np.testing.assert_array_equal(label_map.classes, classes[row])
            assert store.size(int(row)) == tuple(sizes[row])


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
        (['a'], {'k': 8}, '8 scores per location were asked of an annotator with 7 classes'),
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


def test_a_finished_store_has_nothing_left_to_write(tmp_path):
    finished(tmp_path / 'store', names(8))
    writer = open_writer(tmp_path / 'store', names(8))
    assert writer.complete
    assert list(writer.batches()) == []
    assert writer.num_done == 8


def test_checksums_cover_every_other_file(tmp_path):
    store = finished(tmp_path / 'store', names(21))
    files = {file.name: file_digest(file) for file in store.path.iterdir() if file.name != 'meta.json'}
    assert store.meta['checksums'] == files


def test_ids_take_two_bytes_up_to_65536_classes(tmp_path):
    assert finished(tmp_path / 'two', names(1), num_classes=65_536)[0].classes.dtype == np.uint16
    assert finished(tmp_path / 'four', names(1), num_classes=65_537)[0].classes.dtype == np.uint32


def test_images_without_a_map_are_listed_and_not_found(tmp_path):
    with open_writer(tmp_path / 'store', names(8)) as writer:
        for batch in writer.batches():
            scores, classes, sizes = maps_of(writer.meta, batch)
            sizes[1] = 0
            writer.write(batch, scores, classes, sizes)
        writer.finalise()
    store = LabelStore(tmp_path / 'store')
    assert store.meta['skipped'] == ['class/0001.jpg', 'class/0005.jpg']
    assert list(store.indices(names(8))) == [0, -1, 2, 3, 4, -1, 6, 7]


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


def test_a_store_is_read_without_writing(tmp_path):
    store = finished(tmp_path / 'store', names(8))
    opened = []

    def note(event: str, arguments: tuple) -> None:
        if noting and event == 'open' and str(arguments[0]).startswith(str(tmp_path)):
            opened.append(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    noting = True
    sys.addaudithook(note)  # there is no way to take it out again
    store = LabelStore(store.path)
    assert store.size(7) == (107, 207)
    assert store[3].scores.shape == (3, 2, 2)
    noting = False
    assert set(opened) == {0}
    assert len(opened) >= 5


def test_unknown_keys_are_not_found(tmp_path):
    store = finished(tmp_path / 'store', names(3))
    assert list(store.indices(['class/0001.jpg', 'class/0001.jp', 'class/0001.jpgx', '', 'zzz'])) == [1, -1, -1, -1, -1]
    assert store.indices([]).shape == (0,)
    assert 'class/0001.jpg' in store.keys
    assert 'class/0009.jpg' not in store.keys


def test_equal_file_names_in_different_folders_are_different_images(tmp_path):
    store = finished(tmp_path / 'store', ['b/1.jpg', 'a/1.jpg'])
    assert list(store.indices(['b/1.jpg', 'a/1.jpg'])) == [1, 0]


def test_a_map_becomes_tensors(tmp_path):
    label_map = finished(tmp_path / 'store', names(3))[2]
    assert torch.from_numpy(label_map.scores).shape == (3, 2, 2)
    assert torch.from_numpy(label_map.classes.astype(np.int64)).dtype == torch.int64


def test_a_squashed_map_covers_its_whole_image(tmp_path):
    label_map = finished(tmp_path / 'store', names(3))[0]
    np.testing.assert_array_equal(label_map.view.matrix, [[1, 0, 0], [0, 1, 0]])


def test_a_store_travels_to_workers_as_its_path(tmp_path):
    store = finished(tmp_path / 'store', names(8))
    travelled = pickle.dumps(store)
    assert len(travelled) < 500
    np.testing.assert_array_equal(pickle.loads(travelled)[7].scores, store[7].scores)


def test_maps_outside_the_store_are_index_errors(tmp_path):
    store = finished(tmp_path / 'store', names(3))
    for index in (-1, 3):
        with pytest.raises(IndexError):
            store[index]


@pytest.mark.parametrize(
    ('field', 'value', 'said'),
    [
        ('version', 2, 'newer than 1: update tokenlabel'),
        ('complete', False, 'unfinished'),
        ('view', {'rule': 'fisheye', 'size': 32}, "View rule 'fisheye' is unknown"),
        ('format', 'cake recipe', 'does not belong to a label store'),
        ('num_images', 9, r'keys\.npy is damaged'),
    ],
)
def test_a_store_that_cannot_be_read_says_why(tmp_path, field, value, said):
    store = finished(tmp_path / 'store', names(8))
    (store.path / 'meta.json').write_text(json.dumps(store.meta | {field: value}))
    with pytest.raises(UserError, match=said):
        LabelStore(store.path)


def test_no_store_is_an_error_that_names_the_tool(tmp_path):
    with pytest.raises(UserError, match=r'No label store at .*annotate'):
        LabelStore(tmp_path / 'nowhere')


def test_a_truncated_shard_is_named(tmp_path):
    store = finished(tmp_path / 'store', names(8))
    file = store.path / 'classes-00000.npy'
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(UserError, match=r'classes-00000\.npy is damaged'):
        LabelStore(store.path)[0]


def test_resuming_on_a_truncated_shard_is_refused(tmp_path):
    with open_writer(tmp_path / 'store', names(8)) as writer:
        writer.write(range(4), *maps_of(writer.meta, range(4)))
    os.truncate(tmp_path / 'store' / 'scores-00000.npy', 200)
    with (
        open_writer(tmp_path / 'store', names(8)) as writer,
        pytest.raises(UserError, match=r'scores-00000\.npy is damaged'),
    ):
        write_all(writer)
