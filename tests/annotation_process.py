"""An annotation that tests run in processes of its own, to kill them."""

import os
import time
from pathlib import Path

import torch

from tests.tiny_classifiers import tiny
from tokenlabel.data.readers import open_images
from tokenlabel.labels.annotator import Annotator
from tokenlabel.labels.annotator.annotation import annotate
from tokenlabel.labels.annotator.dense_classifier import DenseClassifier
from tokenlabel.labels.annotator.inference import Inference
from tokenlabel.labels.store import LabelWriter, image_keys
from tokenlabel.labels.view_rule import Squash

SIZE, BATCH_SIZE, PER_SHARD = 64, 2, 8


class LoggedImages:
    """Images whose keys are appended to a log as they are read, a little slowly."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.images = open_images(folder)
        self.class_to_idx = self.images.class_to_idx
        self.keys = image_keys(self.images)
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def filenames(self) -> list[str]:
        return self.images.filenames()

    def __getitem__(self, index: int) -> tuple:
        os.write(self.log, f'{self.keys[index]}\n'.encode())
        time.sleep(0.002)
        return self.images[index]


def open_writer(folder: Path, store: Path, rank: int = 0, world: int = 1) -> LabelWriter:
    return LabelWriter(
        store,
        image_keys(open_images(folder)),
        annotator={'name': 'test_resnet'},
        num_classes=7,
        k=2,
        grid=(2, 2),
        view={'rule': 'squash', 'size': SIZE},
        batch_size=BATCH_SIZE,
        images_per_shard=PER_SHARD,
        rank=rank,
        world=world,
    )


def run(folder: Path, store: Path, log: Path, rank: int = 0, world: int = 1) -> None:
    """Annotate what is left, and finalise."""
    torch.set_num_threads(1)
    annotator = Annotator(DenseClassifier(tiny('test_resnet')), SIZE, (0.5,) * 3, (0.5,) * 3, {})
    inference = Inference(annotator, Squash(SIZE), 2)
    with open_writer(folder, store, rank, world) as writer:
        annotate(inference, LoggedImages(folder, log), writer, wait_for_others=True)
        writer.finalise()
