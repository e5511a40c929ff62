"""No work is lost: annotating processes are killed again and again."""

import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.annotation_process import open_writer, run

NUM_IMAGES = 60


@pytest.fixture(scope='module')
def processes():
    """Starts processes that have everything imported."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['tests.annotation_process'])
    return context


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'images'
    numbers = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        path = folder / 'abc'[number % 3] / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope='module')
def straight(folder, tmp_path_factory) -> dict[str, bytes]:
    """Contents of a store that was made in one go."""
    path = tmp_path_factory.mktemp('straight')
    run(folder, path / 'store', path / 'log')
    return contents(path / 'store')


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def keys_left(folder: Path, store: Path) -> set[str]:
    """Images without a map on disk."""
    with open_writer(folder, store) as writer:
        return {key for batch in writer.batches() for key in writer.keys[batch.start : batch.stop]}


def start(processes, folder: Path, store: Path, log: Path, world: int) -> list:
    lives = [processes.Process(target=run, args=(folder, store, log, rank, world)) for rank in range(world)]
    for life in lives:
        life.start()
    return lives


@pytest.mark.parametrize('world', [1, 2])
def test_killed_again_and_again_the_store_is_the_same_and_no_map_on_disk_is_made_twice(
    processes, folder, straight, tmp_path, world
):
    moments = random.Random(1)
    store, log = tmp_path / 'store', tmp_path / 'log'
    log.touch()
    left = None
    for _ in range(5):
        begin = log.stat().st_size
        lives = start(processes, folder, store, log, world)
        while log.stat().st_size == begin and any(life.is_alive() for life in lives):
            time.sleep(0.001)
        for life in lives:
            time.sleep(moments.uniform(0, 0.25))
            life.kill()
        for life in lives:
            life.join()
        annotated = log.read_bytes()[begin:].decode().splitlines()
        assert left is None or set(annotated) <= left
        left = keys_left(folder, store)
    begin = log.stat().st_size
    for life in start(processes, folder, store, log, world):
        life.join()
        assert life.exitcode == 0
    annotated = log.read_bytes()[begin:].decode().splitlines()
    assert sorted(annotated) == sorted(left)
    assert contents(store) == straight


def test_a_process_takes_over_from_one_that_dies(processes, folder, straight, tmp_path):
    store, log = tmp_path / 'store', tmp_path / 'log'
    first, second = start(processes, folder, store, log, world=2)
    while first.is_alive() and sum(file.stat().st_size for file in store.glob('progress-*')) < 5:
        time.sleep(0.001)
    second.kill()
    first.join()
    assert first.exitcode == 0
    assert contents(store) == straight
