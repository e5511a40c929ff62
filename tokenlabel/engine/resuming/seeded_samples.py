"""Segmentation data in our order: skippable, and the same for any number of loader workers."""

from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, Dataset

from tokenlabel.data.images import random_state_of
from tokenlabel.data.sampler import EndlessSampler
from tokenlabel.errors import UserError

ENDLESS = (InfiniteSampler, EndlessSampler)


@DATASETS.register_module()
class SeededSamples(Dataset):
    """Any dataset, with the random choices of a sample a function of (seed, epoch, index); else it is that dataset.

    Args:
        dataset: its config.
        seed: the same in all processes.
    """

    def __init__(self, dataset: dict, seed: int) -> None:
        self.dataset = DATASETS.build(dataset)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, which: tuple[int, int]) -> Any:
        """Sample `(epoch, index)`, as `EndlessSampler` names it."""
        epoch, index = which
        with random_state_of(self.seed, epoch, index):
            return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not there yet, in a copy that is being made
            raise AttributeError(name)
        return getattr(self.dataset, name)


def with_seeded_samples(dataloader: dict, seed: int) -> dict:
    """The config of a loader, with ours in place of MMEngine's InfiniteSampler; of other loaders as it is.

    MMEngine's workers draw augmentations from generators of their own, which no checkpoint knows.
    """
    sampler = dataloader.get('sampler')
    if not isinstance(sampler, dict) or sampler.get('type') not in ('InfiniteSampler', InfiniteSampler):
        return dataloader
    dataset = {'type': 'SeededSamples', 'dataset': dataloader['dataset'], 'seed': seed}
    return {**dataloader, 'dataset': dataset, 'sampler': {**sampler, 'type': 'EndlessSampler'}}


def check_ends(loader: DataLoader, split: str) -> None:
    """Makes sure that a pass through a loader ends, for loops that wait for its end.

    Raises:
        UserError: Its sampler continues for ever.
    """
    if isinstance(loader.sampler, ENDLESS):
        raise UserError(never_ends(split))


def never_ends(split: str) -> str:
    """What is wrong with a sampler of `ENDLESS` in a loop that waits, and what to do."""
    remedy = 'DefaultSampler'
    if split == 'train':
        remedy += " (shuffle=True), or train_cfg to dict(type='IterBasedTrainLoop', max_iters=...)"
    return (
        f'{split}_dataloader.sampler never ends, and {split}_cfg waits for the end of an epoch: set the sampler to '
        f'{remedy}.'
    )
