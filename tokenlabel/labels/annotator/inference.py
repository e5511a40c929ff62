"""Batched annotator inference: from pixels to the top-k scores per location."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from tokenlabel.labels.annotator.loading import Annotator
from tokenlabel.labels.view_rule import ViewRule

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class Maps(NamedTuple):
    """Score maps of a batch, on the CPU. Copies from a GPU are asynchronous: call `wait` before reading.

    Attributes:
        scores: float16 [B, k, S, S], best first.
        classes: int32 [B, k, S, S].
        best: the model's predicted class of each image, int64 [B].
        copied: event at the end of the copies from a GPU; None on a CPU.
    """

    scores: Tensor
    classes: Tensor
    best: Tensor
    copied: torch.cuda.Event | None

    def wait(self) -> None:
        """Blocks until the copies are done."""
        if self.copied is not None:
            self.copied.synchronize()


class Inference:
    """Runs an annotator on batches of pixels; moves it to its device and optimises it for inference.

    Args:
        annotator: the classifier and the normalisation of its input.
        rule: the part of an image that the pixels show.
        k: scores kept per location.
        device: where the annotator runs.
        precision: a key of `PRECISIONS`; all but fp32 use autocast. fp32 never uses TF32.
        flip: average the logits of the image and of its mirror image, mirrored back.
        channels_last: use the channels-last memory format; None uses it for models with 4-D features.
        batch_size: compile the feature extractor for this size and pad smaller batches to it; None does not compile.
    """

    def __init__(
        self,
        annotator: Annotator,
        rule: ViewRule,
        k: int,
        *,
        device: torch.device | str = 'cpu',
        precision: str = 'fp32',
        flip: bool = False,
        channels_last: bool | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.rule, self.k, self.precision, self.flip = rule, k, precision, flip
        self.batch_size = batch_size
        self.mean = torch.tensor(annotator.mean, device=self.device).view(3, 1, 1) * 255
        self.std = torch.tensor(annotator.std, device=self.device).view(3, 1, 1) * 255
        self.dense = annotator.dense.to(self.device)
        if channels_last is None:
            channels_last = self._has_feature_maps()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.dense.to(memory_format=self.memory_format)
        if batch_size is not None:
            self.dense.features = torch.compile(self.dense.features, dynamic=False)

    @torch.no_grad()
    def __call__(self, pixels: Tensor, sizes: Tensor) -> Maps:
        """Score maps of images.

        Args:
            pixels: uint8 [B, 3, size, size], as the view rule makes them.
            sizes: width and height of the images [B, 2]; (0, 0) for pixels without an image, whose map is zero.
        """
        with _full_fp32(), torch.autocast(self.device.type, PRECISIONS[self.precision], self.precision != 'fp32'):
            image_logits, logits = self._classify(self._inputs(pixels))
        scores, classes = (maps[: len(pixels)] for maps in logits.topk(self.k, dim=1))
        unknown = sizes[:, 0] == 0
        sizes = torch.where(unknown[:, None], 1, sizes)
        scores, classes = (self.rule.settle(maps, sizes) for maps in (scores, classes))
        if unknown.any():
            scores[unknown.to(self.device)] = 0
            classes[unknown.to(self.device)] = 0
        results = scores.half(), classes.int(), image_logits[: len(pixels)].argmax(1)
        # to pinned memory, so that the copy overlaps with the next batch
        results = [result.to('cpu', non_blocking=True) for result in results]
        copied = None
        if self.device.type == 'cuda':
            copied = torch.cuda.Event()
            copied.record()
        return Maps(*results, copied)

    def _inputs(self, pixels: Tensor) -> Tensor:
        missing = 0 if self.batch_size is None else self.batch_size - len(pixels)
        if missing:
            pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
        inputs = (pixels.to(self.device, non_blocking=True) - self.mean) / self.std
        return inputs.contiguous(memory_format=self.memory_format)

    def _classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        image_logits, logits = self.dense.classify(inputs)
        if self.flip:
            # two passes, because one batch of both would take twice the memory
            mirrored_image_logits, mirrored = self.dense.classify(inputs.flip(-1))
            image_logits = (image_logits + mirrored_image_logits) / 2
            logits = (logits + mirrored.flip(-1)) / 2
        return image_logits, logits

    @torch.no_grad()
    def _has_feature_maps(self) -> bool:
        features = self.dense.features(torch.zeros(1, 3, self.rule.size, self.rule.size, device=self.device))
        return isinstance(features, Tensor) and features.ndim == 4


@contextmanager
def _full_fp32() -> Iterator[None]:
    """Disables TF32, which PyTorch allows in convolutions by default."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    saved = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = saved
