"""A picture of the first batch that a run trains on."""

from pathlib import Path

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from tokenlabel.argument_checks import Count, checked
from tokenlabel.data.sample import Batch
from tokenlabel.engine.classifier import classifier_of
from tokenlabel.engine.resuming.random_states import random_numbers_used_twice
from tokenlabel.pictures.labels import save_figure, token_labels_figure


@HOOKS.register_module()
class FirstBatchPicture(Hook):
    """Writes `first_batch.png` to the work dir: the first images that the network saw, and the labels of their tokens.

    The images are shown as the network sees them, with erased rectangles and mixing. If tokens are not trained, the
    label of the whole image is drawn. Rank 0 draws its own batch; a resumed run draws none. The hook does not change
    the random numbers of training.

    Args:
        num_images: largest number of images to draw.
    """

    @checked
    def __init__(self, num_images: Count = 8) -> None:
        self.num_images = num_images
        self._batch: Batch | None = None

    @master_only
    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Prepares the batch with the same random numbers that the training step will use."""
        if runner.iter == 0:
            preprocessor = classifier_of(runner).data_preprocessor
            with random_numbers_used_twice():
                batch = preprocessor(data_batch, training=True)['batch']
            # the end of the batch as well: image i is mixed with image i of the reversed batch
            count = len(batch['image'])
            kept = [place for place in range(count) if min(place, count - 1 - place) < self.num_images]
            self._batch = {
                name: values[kept] if isinstance(values, Tensor) else values for name, values in batch.items()
            }

    @master_only
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Draws the batch; the model's token grid is known by now."""
        if self._batch is None:
            return
        classifier, batch, self._batch = classifier_of(runner), self._batch, None
        with torch.no_grad():
            cls, tokens = classifier.targets_of(batch, classifier.grid).dense()
        grids = cls[:, None, None] if tokens is None else tokens.unflatten(1, classifier.grid)
        names = classifier.class_names or [str(label) for label in range(classifier.num_classes)]
        preprocessor = classifier.data_preprocessor
        pixels = (batch['image'] * preprocessor.std + preprocessor.mean).round().clamp(0, 255).byte()
        captions = [names[label] if label >= 0 else '' for label in batch['label'].tolist()]
        drawn = slice(self.num_images)
        figure = token_labels_figure(list(pixels[drawn]), list(grids[drawn]), names, captions=captions[drawn])
        path = save_figure(figure, Path(runner.work_dir, 'first_batch.png'))
        runner.logger.info(f'The first batch and its labels are drawn in {path}.')
