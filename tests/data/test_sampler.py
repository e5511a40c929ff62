"""The endless, skippable order of samples."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenlabel.data.sampler import EndlessSampler


def first(sampler: EndlessSampler, count: int) -> list[tuple[int, int]]:
    return list(islice(iter(sampler), count))


def test_an_epoch_holds_every_sample_once_and_the_next_is_shuffled_differently():
    stream = first(EndlessSampler(range(20), seed=3), 40)
    epochs = [[index for epoch, index in stream if epoch == wanted] for wanted in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]


def test_seeds_give_different_orders_and_one_seed_always_the_same():
    assert first(EndlessSampler(range(50), seed=1), 50) == first(EndlessSampler(range(50), seed=1), 50)
    assert first(EndlessSampler(range(50), seed=1), 50) != first(EndlessSampler(range(50), seed=2), 50)


def test_without_shuffling_the_order_is_the_dataset_s():
    assert [index for _, index in first(EndlessSampler(range(4), shuffle=False), 6)] == [0, 1, 2, 3, 0, 1]


@given(size=st.integers(1, 40), world_size=st.integers(1, 5), skipped=st.integers(0, 100), seed=st.integers(0, 2**20))
def test_processes_share_one_stream_and_skipping_equals_reading(size, world_size, skipped, seed):
    alone = first(EndlessSampler(range(size), seed), (skipped + 10) * world_size)
    for rank in range(world_size):
        sampler = EndlessSampler(range(size), seed, rank=rank, world_size=world_size)
        sampler.skip(skipped)
        assert first(sampler, 10) == alone[rank::world_size][skipped:]


@pytest.mark.parametrize(('size', 'world_size', 'length'), [(10, 1, 10), (10, 4, 3), (3, 4, 1)])
def test_its_length_is_a_process_s_share_of_an_epoch_rounded_up(size, world_size, length):
    assert len(EndlessSampler(range(size), rank=0, world_size=world_size)) == length
