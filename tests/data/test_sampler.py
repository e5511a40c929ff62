"""The endless, skippable order of samples."""

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import DataLoader, Dataset

from tokenlabel.data.sampler import EndlessSampler, SampleIndex
from tokenlabel.errors import UserError


def first(sampler: EndlessSampler, count: int) -> list[tuple[int, int]]:
    """Epoch and number of the samples."""
    return [(number.epoch, int(number)) for number in islice(iter(sampler), count)]


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


@given(
    size=st.integers(1, 40),
    world_size=st.integers(1, 5),
    skipped=st.integers(0, 100),
    seed=st.integers(0, 2**20),
    repeats=st.integers(1, 4),
)
def test_processes_share_one_stream_and_skipping_equals_reading(size, world_size, skipped, seed, repeats):
    alone = first(EndlessSampler(range(size), seed, repeats=repeats), (skipped + 10) * world_size)
    for rank in range(world_size):
        sampler = EndlessSampler(range(size), seed, repeats=repeats, rank=rank, world_size=world_size)
        sampler.skip(skipped)
        assert first(sampler, 10) == alone[rank::world_size][skipped:]


@pytest.mark.parametrize(('size', 'world_size', 'length'), [(10, 1, 10), (10, 4, 3), (3, 4, 1)])
def test_its_length_is_a_process_s_share_of_an_epoch_rounded_up(size, world_size, length):
    assert len(EndlessSampler(range(size), rank=0, world_size=world_size)) == length


class Drawn(Dataset):
    """Gives back what it was asked for."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, number: SampleIndex) -> torch.Tensor:
        return torch.tensor((number.epoch, number))


class TestRepeatedAugmentation:
    def test_an_epoch_keeps_its_length_and_shows_each_of_its_images_that_often_in_a_row(self):
        stream = first(EndlessSampler(range(12), seed=3, repeats=3), 24)
        epochs = [[index for _, index in stream[:12]], [index for _, index in stream[12:]]]
        for shown in epochs:
            assert shown == [index for index in shown[::3] for _ in range(3)]
            assert len(set(shown)) == 4
        assert set(epochs[0]) != set(epochs[1])

    def test_each_copy_is_augmented_in_its_own_way(self):
        stream = first(EndlessSampler(range(5), repeats=3), 60)
        assert len(set(stream)) == len(stream)

    def test_where_it_does_not_divide_the_epoch_the_last_image_is_shown_less_often(self):
        shown = [index for _, index in first(EndlessSampler(range(5), shuffle=False, repeats=3), 10)]
        assert shown == [0, 0, 0, 1, 1] * 2

    @pytest.mark.parametrize('rank', range(4))
    def test_each_process_reads_what_timm_s_sampler_gives_it(self, rank):
        timms = RepeatAugSampler(range(20), 4, rank, shuffle=False, num_repeats=3, selected_round=0)
        ours = EndlessSampler(range(20), shuffle=False, repeats=3, rank=rank, world_size=4)
        assert [index for _, index in first(ours, len(ours))] == list(timms)

    @pytest.mark.parametrize('num_workers', [1, 2])
    def test_any_number_of_workers_gives_the_same_batches(self, num_workers):
        def batches(num_workers: int) -> list:
            sampler = EndlessSampler(Drawn(), seed=1, repeats=3)
            loader = DataLoader(Drawn(), 4, sampler=sampler, num_workers=num_workers)
            return [batch.tolist() for batch in islice(iter(loader), 7)]

        assert batches(num_workers) == batches(0)

    @pytest.mark.parametrize('repeats', [0, -1, 1.5])
    def test_a_number_of_repeats_that_is_none_is_refused(self, repeats):
        with pytest.raises(UserError, match=rf'sampler\.repeats is {repeats}: give how often'):
            EndlessSampler(range(4), repeats=repeats)
