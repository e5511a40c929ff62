"""The training sampler: endless, resumable, and independent of the number of loader workers."""

from collections.abc import Iterator, Sized

import torch
import torch.distributed
from torch.utils.data import Sampler

from tokenlabel.errors import UserError


class SampleIndex(int):
    """Index of a sample in its dataset, with the epoch as an attribute; both determine the sample's augmentation.

    Other datasets can use it as a plain int.
    """

    epoch: int

    def __new__(cls, index: int, epoch: int) -> 'SampleIndex':
        number = super().__new__(cls, index)
        number.epoch = epoch
        return number

    def __reduce__(self) -> tuple:
        return SampleIndex, (int(self), self.epoch)


class EndlessSampler(Sampler):
    """Endless sampler: each epoch is a permutation given by (seed, epoch), distributed over the ranks.

    Yields `SampleIndex`, so that a dataset can make a sample's augmentation a function of (seed, epoch, index). All
    ranks read one endless stream; rank r takes positions r, r + world_size, ... Resuming needs no data: `skip(n)` only
    changes the position.

    With repeated augmentation (Hoffer et al. 2020) the copies of an image follow each other, so that they share a batch
    or an iteration of several ranks. An epoch keeps its length, so it shows only a part of the images, a different one
    in each epoch. The order is that of timm's `RepeatAugSampler`. The epoch of a copy is `epoch * repeats + copy`, so
    that all copies are augmented differently.

    Args:
        dataset: any object with a length, in samples.
        seed: the same on all ranks; None means 0.
        shuffle: False keeps the dataset's order in every epoch.
        repeats: number of differently augmented copies of each image in an epoch.
        rank: rank of this process; taken from `torch.distributed` if None.
        world_size: number of processes; taken from `torch.distributed` if None.

    Raises:
        UserError: `repeats` is not a whole number of at least 1.
    """

    def __init__(
        self,
        dataset: Sized,
        seed: int | None = 0,
        shuffle: bool = True,
        repeats: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not isinstance(repeats, int) or repeats < 1:
            raise UserError(
                f'train_dataloader.sampler.repeats is {repeats}: give how often each image of an epoch is shown, '
                'from 1 on.'
            )
        self.num_samples = len(dataset)
        self.repeats = repeats
        self.seed = seed or 0
        self.shuffle = shuffle
        self.rank = (torch.distributed.get_rank() if distributed else 0) if rank is None else rank
        self.world_size = (
            (torch.distributed.get_world_size() if distributed else 1) if world_size is None else world_size
        )
        self.num_skipped = 0

    def __iter__(self) -> Iterator[SampleIndex]:
        position = self.num_skipped * self.world_size + self.rank
        current, order = -1, torch.empty(0)
        while True:
            epoch, offset = divmod(position, self.num_samples)
            if epoch != current:
                current, order = epoch, self._order(epoch)
            which, copy = divmod(offset, self.repeats)
            yield SampleIndex(int(order[which]), epoch * self.repeats + copy)
            position += self.world_size

    def __len__(self) -> int:
        """Samples per epoch of this rank, rounded up; gives the length of the loader."""
        return -(-self.num_samples // self.world_size)

    def skip(self, num_samples: int) -> None:
        """Moves the start of later iterators forward by `num_samples` of this rank's samples."""
        self.num_skipped += num_samples

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(self.num_samples)
        # one 64-bit seed per (seed, epoch): epochs of neighbouring seeds do not coincide
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.num_samples, generator=generator)
