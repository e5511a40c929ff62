"""Segmentation data in our order: skippable, and the same for any number of loader workers."""

from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, Dataset

from tokenlabel.data.images import LabeledImages, random_state_of
from tokenlabel.data.sampler import EndlessSampler, SampleIndex
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

    def __getitem__(self, index: SampleIndex) -> Any:
        """A sample, as `EndlessSampler` numbers it."""
        with random_state_of(self.seed, index.epoch, index):
            return self.dataset[int(index)]

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not there yet, in a copy that is being made
            raise AttributeError(name)
        return getattr(self.dataset, name)


def with_seeded_samples(dataloader: dict, seed: int) -> dict:
    """The config of a loader, its dataset as `SeededSamples` where the sampler names epochs; of others as it is.

    MMEngine's workers draw augmentations from generators of their own, which no checkpoint knows. `LabeledImages` seeds
    its samples itself.
    """
    sampler, dataset = dataloader.get('sampler'), dataloader['dataset']
    if not isinstance(sampler, dict) or sampler.get('type') not in ('EndlessSampler', EndlessSampler):
        return dataloader
    if isinstance(dataset, LabeledImages) or dataset.get('type') in ('LabeledImages', LabeledImages):
        return dataloader
    return {**dataloader, 'dataset': {'type': 'SeededSamples', 'dataset': dataset, 'seed': seed}}


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
