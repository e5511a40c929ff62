"""Benchmark of the label store: annotating images and reading label maps, compared with one file per image."""

import argparse
import multiprocessing
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from tokenlabel.benchmarks.timing import report, seconds, versions
from tokenlabel.data.readers import open_images
from tokenlabel.image_files.reading import decode, open_image
from tokenlabel.labels.annotator import load_annotator, map_side
from tokenlabel.labels.annotator.annotation import annotate
from tokenlabel.labels.annotator.inference import Inference
from tokenlabel.labels.store import LabelStore, LabelWriter, image_keys
from tokenlabel.labels.store.files import ARRAYS, file_name, file_names, layout, num_shards
from tokenlabel.labels.store.meta import write_meta
from tokenlabel.labels.view_rule import Squash, rule_record

MEBIBYTE = 2**20


def benchmark_labels(args: argparse.Namespace) -> None:
    """Times annotating, reading and opening in a temporary folder."""
    print(versions())
    with tempfile.TemporaryDirectory() as folder:
        benchmark_annotating(args, Path(folder))
        benchmark_reading(args, Path(folder))
        benchmark_opening(args, Path(folder))


def benchmark_annotating(args: argparse.Namespace, folder: Path) -> None:
    """Times annotation of batches into a label store, and of single images into one file per image."""
    images = folder / 'images'
    write_photographs(images, args.images)
    torch.manual_seed(0)
    model = timm.create_model(args.annotator, pretrained=False)
    torch.save(model.state_dict(), folder / 'weights.pth')
    annotator = load_annotator(args.annotator, folder / 'weights.pth', size=args.img_size)
    annotator.dense.to(args.device)
    side = map_side(annotator.dense, args.img_size, args.device)
    reader = open_images(images)

    def into_a_store() -> None:
        with new_writer(folder / 'annotated', image_keys(reader), side, args) as writer:
            inference = Inference(annotator, Squash(args.img_size), 5, device=args.device, precision=args.precision)
            annotate(inference, reader, writer, workers=args.workers)
            writer.finalise()
        shutil.rmtree(folder / 'annotated')

    def into_files() -> None:
        mean, std = (torch.tensor(value, device=args.device).view(3, 1, 1) for value in (annotator.mean, annotator.std))
        for path in sorted(images.rglob('*.jpg')):
            with open(path, 'rb') as file:
                pixels = decode(open_image(file)).resize((args.img_size, args.img_size), Image.Resampling.BICUBIC)
            inputs = torch.from_numpy(np.array(pixels)).to(args.device).permute(2, 0, 1)[None] / 255
            scores, classes = annotator.dense((inputs - mean) / std)[0].topk(5, dim=0)
            target = folder / 'files' / path.parent.name / f'{path.stem}.pt'
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.save(torch.stack([scores.cpu().half(), classes.cpu().half()]), target)
        shutil.rmtree(folder / 'files')

    pairs = [(seconds(into_a_store, args.device), seconds(into_files, args.device)) for _ in range(args.runs)]
    for way, times in zip(('store', 'one image at a time'), zip(*pairs, strict=True), strict=True):
        print(f'annotating with {args.annotator}, {way}: {args.images / min(times):.1f} images/s at best')
    report(f'annotating {args.images} images ({args.precision} against fp32)', pairs)


def benchmark_reading(args: argparse.Namespace, folder: Path) -> None:
    """Times reads of maps (18 x 18 cells, top 5) in random order from the page cache, and prints their size on disk."""
    rng = np.random.default_rng(0)
    keys = imagenet_like_keys(args.maps)
    scores = rng.normal(8, 3, (args.maps, 5, 18, 18)).astype(np.float16)
    classes = rng.integers(0, 1000, (args.maps, 5, 18, 18)).astype(np.uint16)
    with new_writer(folder / 'store', keys, 18, args) as writer:
        for batch in writer.batches():
            rows = slice(batch.start, batch.stop)
            writer.write(batch, scores[rows], classes[rows], np.full((len(batch), 2), 500))
        writer.finalise()
    (folder / 'files').mkdir()
    files = [folder / 'files' / f'{number}.pt' for number in range(args.maps)]
    for number, path in enumerate(files):
        torch.save(torch.from_numpy(np.stack([scores[number], classes[number].astype(np.float16)])), path)

    store = LabelStore(folder / 'store')
    order = random.Random(0).sample(range(args.maps), args.maps)

    def from_store() -> None:
        for number in order:
            store[number]

    def from_files() -> None:
        for number in order:
            torch.load(files[number], weights_only=True)

    from_store(), from_files()  # into the page cache
    pairs = [(seconds(from_store, 'cpu'), seconds(from_files, 'cpu')) for _ in range(args.runs)]
    for way, times in zip(('store', 'single files'), zip(*pairs, strict=True), strict=True):
        print(f'a random read, {way}: {1e6 * min(times) / args.maps:.1f} microseconds at best')
    report(f'reading {args.maps} maps', pairs)
    for way, place in (('store', folder / 'store'), ('single files', folder / 'files')):
        size = sum(path.stat().st_size for path in place.rglob('*') if path.is_file())
        print(f'bytes per image, {way}: {size / args.maps:.0f}')


def benchmark_opening(args: argparse.Namespace, folder: Path) -> None:
    """Times opening and random reads of a store of ImageNet's size in new processes. Its maps are sparse files."""
    path = folder / 'large'
    writer = new_writer(path, imagenet_like_keys(args.entries), 18, args)
    for shard in range(num_shards(writer.meta)):
        for name in ARRAYS:
            dtype, shape = layout(writer.meta, name, shard)
            array = np.lib.format.open_memmap(path / file_name(name, shard), 'w+', dtype, shape)
            if name == 'sizes':  # an image of size 0 would have no map
                array[:] = 500
                array.flush()  # otherwise its pages would count as private memory of the workers
    checksums = dict.fromkeys(file_names(writer.meta), '0' * 64)
    write_meta(path, writer.meta | {'complete': True, 'checksums': checksums})

    spawn = multiprocessing.get_context('spawn')
    print(f'opening a store of {args.entries:,} images, and the memory that each worker process needs for it:')
    for worker in range(2):
        with spawn.Pool(1) as pool:
            opening, reading, private, resident = pool.apply(open_and_read, (path,))
        print(f'  worker {worker}: open {1000 * opening:.1f} ms, 1000 random reads {1000 * reading:.1f} ms', end=', ')
        print(f'{private / MEBIBYTE:.1f} MiB private, {resident / MEBIBYTE:.1f} MiB resident')


def open_and_read(path: Path) -> tuple[float, float, int, int]:
    """Seconds to open a store and to read 1000 maps, and the increase of private and resident memory in bytes."""
    private, resident = memory()
    begin = time.perf_counter()
    store = LabelStore(path)
    opened = time.perf_counter()
    for number in random.Random(0).sample(range(len(store)), min(1000, len(store))):
        store[number]
    end = time.perf_counter()
    private_after, resident_after = memory()
    return opened - begin, end - opened, private_after - private, resident_after - resident


def memory() -> tuple[int, int]:
    """Private dirty memory and resident memory (RSS) of this process in bytes."""
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()[1:]
    kibibytes = {line.split(':')[0]: int(line.split()[1]) for line in lines}
    return 1024 * kibibytes['Private_Dirty'], 1024 * kibibytes['Rss']


def new_writer(path: Path, keys: list[str], side: int, args: argparse.Namespace) -> LabelWriter:
    """A writer of maps of `side` x `side` cells, top 5 of 1000 classes."""
    return LabelWriter(
        path,
        keys,
        annotator={'name': args.annotator, 'precision': args.precision},
        num_classes=1000,
        k=5,
        grid=(side, side),
        view=rule_record(Squash(args.img_size)),
        batch_size=args.batch_size,
    )


def imagenet_like_keys(count: int) -> list[str]:
    """Paths such as `n00000012/n00000012_34.JPEG`, 1281 per class."""
    return [f'n{number // 1281:08d}/n{number // 1281:08d}_{number % 1281}.JPEG' for number in range(count)]


def write_photographs(folder: Path, count: int) -> None:
    """Writes JPEG files of 500 x 375 pixels, smooth colours with noise, about as large as files of ImageNet."""
    rng = np.random.default_rng(0)
    for number in range(count):
        colours = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8))
        pixels = np.asarray(colours.resize((500, 375), Image.Resampling.BICUBIC)) + rng.normal(0, 12, (375, 500, 3))
        path = folder / f'class{number % 4}' / f'{number}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
