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
    """Writes `first_batch.png` to the work dir: what the network was given first, and the labels of its tokens.

    The images are as the network got them, erased rectangles and mixtures included. Where tokens are not trained, the
    label of the whole image is drawn. The first process of a run draws its own batch, unless the run resumes from a
    checkpoint's iteration. Random numbers of the training are the same with this hook and without.

    Args:
        num_images: at most so many.
    """

    @checked
    def __init__(self, num_images: Count = 8) -> None:
        self.num_images = num_images
        self._batch: Batch | None = None

    @master_only
    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Prepares the batch with the very random numbers that the training step is about to use."""
        if runner.iter == 0:
            preprocessor = classifier_of(runner).data_preprocessor
            with random_numbers_used_twice():
                batch = preprocessor(data_batch, training=True)['batch']
            # the other end of the batch as well: a mixed image's partner mirrors its place
            count = len(batch['image'])
            kept = [place for place in range(count) if min(place, count - 1 - place) < self.num_images]
            self._batch = {
                name: values[kept] if isinstance(values, Tensor) else values for name, values in batch.items()
            }

    @master_only
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Draws it, now that the model knows its grid."""
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
