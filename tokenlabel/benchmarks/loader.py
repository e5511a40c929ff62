"""Benchmark of data loading from image files to training batches, compared with torchvision's transforms on PIL images.

Both run in this process on one thread. CPU time is measured, so that other load on the machine has little effect. The
result is images per second and core, without disk latency and without the transfer of batches between processes.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data.auto_augment import posterize, rand_augment_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip, ToTensor

from tokenlabel.benchmarks.timing import report, seconds, versions
from tokenlabel.data.images import LabeledImages
from tokenlabel.engine.preprocessor import ImagePreprocessor
from tokenlabel.transforms.image import TrainTransform

ERASING = 0.25


def benchmark_loader(args: argparse.Namespace) -> None:
    """Times the recipe's augmentation from files to collated batches, and the preprocessing that runs on the device."""
    print(versions())
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        mean_bytes = write_photographs(Path(folder), args.images, (args.width, args.height))
        print(f'{args.images} JPEG files of {args.width} x {args.height}, {mean_bytes / 1000:.0f} kB on average')
        for augment in (args.auto_augment, None):
            usual = loader(ImageFolder(folder, usual_transform(args.img_size, augment)), args)
            ways = {'as timm': {}, 'draft': {'draft': True}}
            for name, options in ways.items():
                transform = TrainTransform(args.img_size, auto_augment=augment, **options)
                ours = loader(LabeledImages(folder, transform), args)
                compare(f'{augment or "no RandAugment"}, {name}', ours, usual, args)
                report_device(ours, args)


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> float:
    """Writes random crops of two photographs as JPEG files of one class; returns their mean size in bytes."""
    random.seed(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    (folder / 'class').mkdir()
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        share = random.uniform(0.6, 1)
        width, height = share * photograph.width, share * photograph.height
        left, top = random.uniform(0, photograph.width - width), random.uniform(0, photograph.height - height)
        part = photograph.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        part.save(folder / 'class' / f'{number}.jpg', quality=95)
    return statistics.mean(path.stat().st_size for path in folder.rglob('*.jpg'))


def usual_transform(size: int, augment: str | None) -> Callable[[Image.Image], torch.Tensor]:
    """The same augmentation, normalisation and random erasing, applied to each image separately."""
    policy = []
    if augment:
        policy = [rand_augment_transform(augment, {'translate_const': int(size * 0.45)})]
        for op in policy[0].ops:
            if op.aug_fn is posterize:  # current Pillow refuses to keep 0 bits
                op.aug_fn = lambda image, bits, **options: posterize(image, max(1, bits))
    return Compose(
        [
            RandomResizedCropAndInterpolation(size, interpolation='random'),
            RandomHorizontalFlip(),
            *policy,
            ToTensor(),
            Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
            RandomErasing(ERASING, mode='pixel', device='cpu'),
        ]
    )


def loader(dataset: Dataset, args: argparse.Namespace) -> DataLoader:
    """A PyTorch DataLoader without shuffling and without workers."""
    return DataLoader(dataset, args.batch)


def compare(what: str, ours: DataLoader, usual: DataLoader, args: argparse.Namespace) -> None:
    """Prints milliseconds per run, the speed-up, and images per second and core."""

    def run(batches: DataLoader) -> float:
        random.seed(0)  # for torchvision's crops; ours are seeded per sample
        torch.manual_seed(0)
        begin = time.process_time()
        for _ in batches:
            pass
        return time.process_time() - begin

    run(ours), run(usual)
    pairs = [(run(ours), run(usual)) for _ in range(args.runs)]
    report(what, pairs)
    speeds = (args.images / statistics.median(column) for column in zip(*pairs, strict=True))
    print('  {:.0f} against {:.0f} images/s per core'.format(*speeds))


def report_device(batches: DataLoader, args: argparse.Namespace) -> None:
    """Prints the time of the data preprocessor for one batch on the device."""
    batch = next(iter(batches))
    preprocessor = ImagePreprocessor(erasing=ERASING).to(args.device)
    times = [seconds(lambda: preprocessor(batch, training=True), args.device) for _ in range(args.runs + 1)]
    size = len(batch['image'])
    print(
        f'  then on {args.device}: {1000 * statistics.median(times[1:]):.1f} ms per batch of {size}, erasing included'
    )
