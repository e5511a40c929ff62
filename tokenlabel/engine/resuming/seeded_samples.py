"""Segmentation samples in a seeded order that can be skipped and does not depend on the number of workers."""

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
    """Wraps a dataset so that the augmentation of a sample depends only on (seed, epoch, index).

    Args:
        dataset: config of the wrapped dataset.
        seed: seed, the same on all ranks.
    """

    def __init__(self, dataset: dict, seed: int) -> None:
        self.dataset = DATASETS.build(dataset)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: SampleIndex) -> Any:
        """The sample at an index of `EndlessSampler`."""
        with random_state_of(self.seed, index.epoch, index):
            return self.dataset[int(index)]

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not set yet while a copy is created
            raise AttributeError(name)
        return getattr(self.dataset, name)


def with_seeded_samples(dataloader: dict, seed: int) -> dict:
    """Wraps the dataset of a loader config in `SeededSamples` if its sampler is an `EndlessSampler`.

    MMEngine's workers draw augmentations from their own generators, which no checkpoint stores. `LabeledImages` seeds
    its samples itself.
    """
    sampler, dataset = dataloader.get('sampler'), dataloader['dataset']
    if not isinstance(sampler, dict) or sampler.get('type') not in ('EndlessSampler', EndlessSampler):
        return dataloader
    if isinstance(dataset, LabeledImages) or dataset.get('type') in ('LabeledImages', LabeledImages):
        return dataloader
    return {**dataloader, 'dataset': {'type': 'SeededSamples', 'dataset': dataset, 'seed': seed}}


def check_ends(loader: DataLoader, split: str) -> None:
    """Checks that a loader has an end, for loops that need one.

    Raises:
        UserError: its sampler is endless.
    """
    if isinstance(loader.sampler, ENDLESS):
        raise UserError(never_ends(split))


def never_ends(split: str) -> str:
    """Error message for an endless sampler in a loop that waits for the end of an epoch."""
    remedy = 'DefaultSampler'
    if split == 'train':
        remedy += " (shuffle=True), or train_cfg to dict(type='IterBasedTrainLoop', max_iters=...)"
    return (
        f'{split}_dataloader.sampler never ends, and {split}_cfg waits for the end of an epoch: set the sampler to '
        f'{remedy}.'
    )
