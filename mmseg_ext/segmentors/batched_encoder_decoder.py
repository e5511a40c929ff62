"""An EncoderDecoder whose inference batches windows within and across images."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.backbones import LVViT, TimmTokens
from mmseg_ext.checkpoints.other_classes import load_all_but_other_heads
from mmseg_ext.segmentors.folded_sequential import fold_sequentials
from mmseg_ext.segmentors.light_heads import head_logits
from mmseg_ext.segmentors.windows import WindowedImage, windowed_images
from tokenlabel.errors import UserError

PRECISIONS = {None: None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
# Full-size logits per step: as many as fit a CPU's cache, or as fill a GPU.
WORKING_SET = defaultdict(lambda: 1 << 28, cpu=1 << 20)


@MODELS.register_module()
class BatchedEncoderDecoder(EncoderDecoder):
    """MMSegmentation's EncoderDecoder with faster inference; training and results are the same.

    Windows of all images of a batch, which may differ in size, go through the network together and are summed in place
    in float32. Each image is preprocessed and padded to whole patches separately, so its prediction does not depend on
    the other images.

    Keys of `test_cfg`:
        mode: 'slide' for windows, 'whole' for whole images (the default).
        crop_size: Height and width of a window, in pixels.
        stride: Vertical and horizontal distance between windows, in pixels.
        windows_per_batch: Number of windows (or whole images of one size) per forward pass; more are faster on a GPU
            and take more memory. Default: 4 windows, or 1 on a CPU; all whole images of a batch.
        precision: None for that of the weights, 'bfloat16' or 'float16' for mixed precision.
        keep_logits: Whether predictions of `test_step` and `val_step` contain `seg_logits` [C, H, W], which are many
            times larger than the labels. MMSegmentation's SegTTAModel needs them, `BatchedTTAModel` does not. Default:
            False. Predictions of `predict` always contain them.

    Args:
        backbone: Config of the backbone.
        decode_head: Config of the head, or a list of cascaded heads.
        auxiliary_head: Config of the auxiliary training head, or a list of them.
        num_classes: Number of classes of every head that does not set its own.
        in_channels: Channels of the images, which are then read as stored, and of the backbone; None for 8-bit RGB.
        **kwargs: As EncoderDecoder: `neck`, `train_cfg`, `test_cfg`, `data_preprocessor`, `init_cfg`.

    Raises:
        UserError: `test_cfg` has an unknown mode or precision, no window, or gaps between windows.
    """

    def __init__(
        self,
        backbone: dict,
        decode_head: dict | list[dict],
        auxiliary_head: dict | list[dict] | None = None,
        num_classes: int | None = None,
        in_channels: int | None = None,
        **kwargs,
    ) -> None:
        backbone = with_in_channels(backbone, in_channels)
        heads = (with_num_classes(head, num_classes) for head in (decode_head, auxiliary_head))
        decode_head, auxiliary_head = heads
        super().__init__(backbone, decode_head, auxiliary_head=auxiliary_head, **kwargs)
        check_test_cfg(self.test_cfg or {})
        fold_sequentials(self)

    def load_initial_weights(self, file: str | Path) -> None:
        """Loads `initial_weights` of a config, another segmentation model, as `load_all_but_other_heads`."""
        load_all_but_other_heads(self, file)

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Predictions for a batch from the loader; images may differ in size."""
        if not isinstance(data['inputs'], list):
            return super().test_step(data)
        samples = data.get('data_samples') or [SegDataSample() for _ in data['inputs']]
        pairs = self.preprocessed(zip(data['inputs'], samples, strict=True))
        return self.labelled(pairs, (self.test_cfg or {}).get('keep_logits', False))

    val_step = test_step

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Predictions for preprocessed images [N, 3, H, W], as EncoderDecoder gives them."""
        samples = data_samples or [SegDataSample() for _ in inputs]
        return self.labelled(zip(inputs, samples, strict=True), keep_logits=True)

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits [N, C, H, W] of preprocessed images [N, 3, H, W], padding included."""
        samples = [SegDataSample() for _ in inputs]
        return torch.stack([self.logits(image, {}) for image, _ in self.windowed(zip(inputs, samples, strict=True))])

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """The same as `inference`, under EncoderDecoder's name for sliding windows."""
        return self.inference(inputs, batch_img_metas)

    whole_inference = slide_inference

    def preprocessed(self, pairs: Iterable[tuple[Tensor, SegDataSample]]) -> Iterator[tuple[Tensor, SegDataSample]]:
        """Runs the data preprocessor on each image separately: [3, H, W], padded."""
        for image, sample in pairs:
            data = self.data_preprocessor(dict(inputs=[image], data_samples=[sample]), False)
            yield data['inputs'][0], data['data_samples'][0]

    def labelled(self, pairs: Iterable[tuple[Tensor, SegDataSample]], keep_logits: bool = False) -> list[SegDataSample]:
        """Samples of preprocessed images with the labels `pred_sem_seg` [1, H, W], and `seg_logits` [C, H, W] if kept.

        `finite_logits`, bool [], says whether all logits are finite; otherwise the labels are meaningless.
        """
        samples = []
        for image, sample in self.windowed(pairs):
            logits = new_logits(image, sample.metainfo) if keep_logits or image.num_classes == 1 else None
            labels = largest_classes(self.some_logits(image, sample.metainfo, logits))
            if image.num_classes == 1:
                logits = logits.sigmoid()
                labels = (logits > self.decode_head.threshold).to(logits)
            if logits is not None:
                sample.set_data(dict(seg_logits=PixelData(data=logits)))
            sample.set_data(dict(pred_sem_seg=PixelData(data=labels), finite_logits=image.is_finite))
            samples.append(sample)
        return samples

    def windowed(self, pairs: Iterable[tuple[Tensor, SegDataSample]]) -> Iterator[tuple[WindowedImage, SegDataSample]]:
        """Preprocessed images [3, H, W] with the logits of all their windows, in order."""
        cfg = self.test_cfg or {}
        slide = cfg.get('mode', 'whole') == 'slide'
        crop, stride = (cfg['crop_size'], cfg['stride']) if slide else (None, (1, 1))
        return windowed_images(pairs, self.window_logits, crop, stride, self.windows_per_batch)

    @property
    def windows_per_batch(self) -> int:
        """Number of windows, or whole images of one size, per forward pass."""
        cfg = self.test_cfg or {}
        if at_once := cfg.get('windows_per_batch'):
            return at_once
        if cfg.get('mode', 'whole') == 'whole':
            return sys.maxsize
        return 1 if self.data_preprocessor.device.type == 'cpu' else 4

    def window_logits(self, windows: Tensor) -> Tensor:
        """Windows [B, 3, h, w] -> logits [B, C, h', w'] at the head's resolution."""
        size = windows.shape[2:]
        dtype = PRECISIONS[(self.test_cfg or {}).get('precision')]
        with torch.autocast(windows.device.type, dtype) if dtype else nullcontext():
            features = self.extract_feat(windows)
            if enlarges_its_logits(self.decode_head):
                return head_logits(self.decode_head, features)
            metas = [dict(img_shape=size, pad_shape=size)] * len(windows)
            return self.decode_head.predict(features, metas, self.test_cfg)

    def logits(self, image: WindowedImage, meta: dict) -> Tensor:
        """An image's logits, float32 [C, H, W], at its size on disk; arguments as in `some_logits`."""
        logits = new_logits(image, meta)
        for _ in self.some_logits(image, meta, logits):
            pass
        return logits

    def some_logits(self, image: WindowedImage, meta: dict, out: Tensor | None = None) -> Iterator[Tensor]:
        """An image's logits in float32 at its size on disk, a few classes [c, H, W] at a time to fit a CPU's cache.

        Args:
            image: The image with the logits of its windows.
            meta: Meta information of its sample: padding, flip, and the size on disk.
            out: Output for all logits, [C, H, W]; without it, each step overwrites the previous one.
        """
        top, bottom, left, right = inner_box(image, meta)
        size = size_on_disk(image, meta)
        as_it_is = size == (bottom, right) and not meta.get('flip') and not left and not top
        at_once = max(WORKING_SET[image.image.device.type] // max(size[0] * size[1], bottom * right), 1)
        reused = None if out is not None else new_logits(image, meta, min(at_once, image.num_classes))
        for begin in range(0, image.num_classes, at_once):
            classes = slice(begin, min(begin + at_once, image.num_classes))
            some = out[classes] if reused is None else reused[: classes.stop - begin]
            if as_it_is:
                image.mean_logits(classes, self.align_corners, size, out=some)
            else:
                mean = image.mean_logits(classes, self.align_corners, (bottom, right))[:, top:, left:]
                if meta.get('flip'):
                    mean = mean.flip(2 if meta['flip_direction'] == 'horizontal' else 1)
                some.copy_(resize(mean[None], size, mode='bilinear', align_corners=self.align_corners)[0])
            yield some


def inner_box(image: WindowedImage, meta: dict) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of an image without its padding, in pixels."""
    left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    return top, image.size[0] - bottom, left, image.size[1] - right


def size_on_disk(image: WindowedImage, meta: dict) -> tuple[int, int]:
    """(height, width) of an image's file in pixels."""
    top, bottom, left, right = inner_box(image, meta)
    return tuple(meta.get('ori_shape', (bottom - top, right - left))[:2])


def with_num_classes(head: dict | list[dict] | None, num_classes: int | None) -> dict | list[dict] | None:
    """The config of a head or of several heads, with `num_classes` filled in where it is missing."""
    if head is None or num_classes is None:
        return head
    if isinstance(head, Mapping):
        return {'num_classes': num_classes, **head}
    return [with_num_classes(one, num_classes) for one in head]


def with_in_channels(backbone: dict, in_channels: int | None) -> dict:
    """The config of a backbone with a number of input channels: its own, or else this one.

    MMSegmentation's backbones call it `in_channels`, and ours `in_chans`, as timm does.
    """
    if in_channels is None:
        return backbone
    kind = MODELS.get(backbone['type'])
    is_ours = isinstance(kind, type) and issubclass(kind, LVViT | TimmTokens)
    return {'in_chans' if is_ours else 'in_channels': in_channels, **backbone}


def new_logits(image: WindowedImage, meta: dict, num_classes: int | None = None) -> Tensor:
    """Empty tensor [C, H, W] for the logits of all, or `num_classes`, classes at the size on disk."""
    shape = (num_classes or image.num_classes, *size_on_disk(image, meta))
    return image.image.new_empty(shape, dtype=torch.float32)


def largest_classes(logits: Iterable[Tensor]) -> Tensor:
    """The class with the largest logit, int64 [1, H, W], from logits of a few classes [c, H, W] at a time."""
    first, largest, labels = 0, None, None
    for some in logits:
        some = some.detach()
        if largest is None:
            largest = torch.full_like(some[0], -torch.inf)
            labels = torch.zeros_like(largest, dtype=torch.int32)
        keep_largest(some, first, largest, labels)
        first += len(some)
    return labels.long()[None]


def keep_largest(logits: Tensor, first: int, largest: Tensor, labels: Tensor) -> None:
    """Updates the largest logit [H, W] and its class [H, W] by those of the classes from `first` on, [c, H, W]."""
    if logits.device.type == 'cpu':  # comparing planes takes half the time of `max` over the classes
        for number, plane in enumerate(logits, first):
            labels.masked_fill_(plane > largest, number)
            torch.maximum(largest, plane, out=largest)
        return
    values, indices = logits.max(0)
    labels.copy_(torch.where(values > largest, indices + first, labels))
    torch.maximum(largest, values, out=largest)


def enlarges_its_logits(head: BaseDecodeHead) -> bool:
    """Whether the head's prediction is its upsampled logits; other heads combine masks or points first."""
    return type(head).predict is BaseDecodeHead.predict and type(head).predict_by_feat is BaseDecodeHead.predict_by_feat


def check_test_cfg(cfg: dict) -> None:
    """Checks `test_cfg`; raises `UserError` as `BatchedEncoderDecoder`."""
    mode, precision, at_once = cfg.get('mode', 'whole'), cfg.get('precision'), cfg.get('windows_per_batch')
    if mode not in ('slide', 'whole'):
        raise UserError(f"model.test_cfg.mode is {mode!r}: set 'slide' or 'whole'.")
    if precision not in PRECISIONS:
        raise UserError(f"model.test_cfg.precision is {precision!r}: set None, 'bfloat16' or 'float16'.")
    if at_once is not None and at_once < 1:
        raise UserError(f'model.test_cfg.windows_per_batch is {at_once}: set 1 or more.')
    if mode == 'slide':
        crop, stride = cfg.get('crop_size'), cfg.get('stride')
        if not is_pair(crop) or not is_pair(stride):
            raise UserError("model.test_cfg has mode 'slide' but no crop_size and stride of two numbers: set both.")
        if any(step < 1 or step > side for side, step in zip(crop, stride, strict=True)):
            raise UserError(
                f'model.test_cfg.stride {stride} leaves gaps between windows {crop}: set it to 1..crop_size.'
            )


def is_pair(value: Sequence | None) -> bool:
    """Whether a value is a pair of integers."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(side, int) for side in value)
