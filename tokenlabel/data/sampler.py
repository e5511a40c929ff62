"""The order of training samples: endless, skippable, the same for any number of loader workers."""

from collections.abc import Iterator, Sized

import torch
import torch.distributed
from torch.utils.data import Sampler

from tokenlabel.errors import UserError


class SampleIndex(int):
    """Number of a sample in its dataset, and the epoch it is read in: what a sample's augmentation is a function of.

    To a dataset that knows nothing of epochs it is a plain number.
    """

    epoch: int

    def __new__(cls, index: int, epoch: int) -> 'SampleIndex':
        number = super().__new__(cls, index)
        number.epoch = epoch
        return number

    def __reduce__(self) -> tuple:
        return SampleIndex, (int(self), self.epoch)


class EndlessSampler(Sampler):
    """Epoch after epoch, each a permutation given by (seed, epoch), dealt out to the processes one by one.

    Yields `SampleIndex`, so that a dataset can make a sample's augmentation a function of (seed, epoch, index).
    All processes together read one endless stream; process `rank` takes positions rank, rank + world_size, ...
    Resuming is arithmetic: `skip(n)` moves on without touching a sample.

    With repeated augmentation (Hoffer et al. 2020) the copies of an image follow each other, so that they share a batch
    or a step of several processes. An epoch keeps its length: it shows a part of the images, another in each epoch. The
    order is that of timm's `RepeatAugSampler`. The epoch of a copy is `epoch * repeats + copy`, so that each
    is augmented in its own way.

    Args:
        dataset: anything with a length, in samples.
        seed: the same on all processes; None counts as 0.
        shuffle: False keeps the dataset's own order in every epoch.
        repeats: times that each image of an epoch is shown in it, each time augmented anew.
        rank: this process; taken from `torch.distributed` when None.
        world_size: number of processes; taken from `torch.distributed` when None.

    Raises:
        UserError: `repeats` is no whole number from 1 on.
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
        """Samples of one epoch that fall to this process, rounded up: what the length of a loader is counted from."""
        return -(-self.num_samples // self.world_size)

    def skip(self, num_samples: int) -> None:
        """Starts every later iteration `num_samples` further on in this process's part of the stream."""
        self.num_skipped += num_samples

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(self.num_samples)
        # one 64-bit seed per (seed, epoch): epochs of neighbouring seeds do not coincide
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.num_samples, generator=generator)
