"""An EncoderDecoder whose inference batches windows within and across images."""

import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import torch
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_ext.segmentors.light_heads import head_logits
from mmseg_ext.segmentors.windows import WindowedImage, seen_images
from tokenlabel.errors import UserError

PRECISIONS = {None: None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
# Logits of the image's size that are worked on at once: what a CPU's cache holds, what fills a GPU.
WORKING_SET = defaultdict(lambda: 1 << 28, cpu=1 << 21)


@MODELS.register_module()
class BatchedEncoderDecoder(EncoderDecoder):
    """MMSegmentation's EncoderDecoder; training is the same, inference gives the same result sooner.

    Windows of all images of a batch go through the network together, whatever the images' sizes, and are summed in
    place in float32. Each image is preprocessed, and padded to whole patches, by itself: its prediction does not depend
    on its neighbours.

    Keys of `test_cfg`:
        mode: 'slide' for windows, 'whole' for whole images (the default).
        crop_size: Height and width of a window, in pixels.
        stride: From one window to the next, down and right, in pixels.
        windows_per_batch: How many windows (or whole images of one size) go through the network at once; more are
            faster on a GPU and take more memory. Default: 4 windows; whole images as they come in a batch.
        precision: None for that of the weights, 'bfloat16' or 'float16' for mixed precision.

    Raises:
        UserError: `test_cfg` has another mode or precision, no window, or gaps between windows.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_test_cfg(self.test_cfg or {})

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Predictions for a batch as it comes from the loader; images may differ in size."""
        if not isinstance(data['inputs'], list):
            return super().test_step(data)
        samples = data.get('data_samples') or [SegDataSample() for _ in data['inputs']]
        return self.labelled(self.preprocessed(zip(data['inputs'], samples, strict=True)))

    val_step = test_step

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Predictions for preprocessed images [N, 3, H, W], as EncoderDecoder gives them."""
        samples = data_samples or [SegDataSample() for _ in inputs]
        return self.labelled(zip(inputs, samples, strict=True))

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits [N, C, H, W] of preprocessed images [N, 3, H, W], padding included."""
        return torch.stack([self.logits(image, {}) for image in self.seen(inputs)])

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """The same as `inference`, under the name that EncoderDecoder has for it."""
        return self.inference(inputs, batch_img_metas)

    whole_inference = slide_inference

    def preprocessed(self, pairs: Iterable[tuple[Tensor, SegDataSample]]) -> Iterator[tuple[Tensor, SegDataSample]]:
        """Each image by itself through the data preprocessor: [3, H, W], padded."""
        for image, sample in pairs:
            data = self.data_preprocessor(dict(inputs=[image], data_samples=[sample]), False)
            yield data['inputs'][0], data['data_samples'][0]

    def labelled(self, pairs: Iterable[tuple[Tensor, SegDataSample]]) -> list[SegDataSample]:
        """Preprocessed images' samples with `seg_logits` [C, H, W] and the labels `pred_sem_seg` [1, H, W]."""
        samples = []
        for logits, sample in self.logits_of(pairs):
            if len(logits) > 1:
                labels = logits.argmax(dim=0, keepdim=True)
            else:
                logits.sigmoid_()
                labels = (logits > self.decode_head.threshold).to(logits)
            sample.set_data(dict(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=labels)))
            samples.append(sample)
        return samples

    def logits_of(self, pairs: Iterable[tuple[Tensor, SegDataSample]]) -> Iterator[tuple[Tensor, SegDataSample]]:
        """Logits [C, H, W] of preprocessed images at their size on disk, without padding and unmirrored."""
        samples = deque()

        def images() -> Iterator[Tensor]:
            for image, sample in pairs:
                samples.append(sample)
                yield image

        for image in self.seen(images()):
            sample = samples.popleft()
            yield self.logits(image, sample.metainfo), sample

    def seen(self, images: Iterable[Tensor]) -> Iterator[WindowedImage]:
        """Preprocessed images [3, H, W] after all their windows went through the network, in order."""
        cfg = self.test_cfg or {}
        slide = cfg.get('mode', 'whole') == 'slide'
        at_once = cfg.get('windows_per_batch') or (4 if slide else sys.maxsize)
        crop, stride = (cfg['crop_size'], cfg['stride']) if slide else (None, (1, 1))
        return seen_images(images, self.window_logits, crop, stride, at_once)

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
        """An image's logits [C, H, W] in float32, made a few classes at a time."""
        height, width = meta.get('ori_shape', image.size)[:2]
        out = image.image.new_empty(image.num_classes, height, width, dtype=torch.float32)
        at_once = max(WORKING_SET[image.image.device.type] // max(height * width, image.size[0] * image.size[1]), 1)
        for begin in range(0, len(out), at_once):
            classes = slice(begin, begin + at_once)
            out[classes] = finished(image.mean_logits(classes, self.align_corners), meta, self.align_corners)
        return out


def finished(logits: Tensor, meta: dict, align_corners: bool) -> Tensor:
    """Logits [C, H, W] of a padded, perhaps mirrored and resized image -> those of the image on disk."""
    left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    height, width = logits.shape[-2:]
    logits = logits[:, top : height - bottom, left : width - right]
    if meta.get('flip'):
        logits = logits.flip(2 if meta['flip_direction'] == 'horizontal' else 1)
    size = tuple(meta.get('ori_shape', logits.shape[-2:]))[:2]
    if size == logits.shape[-2:]:
        return logits
    return resize(logits[None], size, mode='bilinear', align_corners=align_corners, warning=False)[0]


def enlarges_its_logits(head: BaseDecodeHead) -> bool:
    """Whether the head's prediction is its logits, enlarged; others combine masks or points first."""
    return type(head).predict is BaseDecodeHead.predict and type(head).predict_by_feat is BaseDecodeHead.predict_by_feat


def check_test_cfg(cfg: dict) -> None:
    """Raises: UserError: as `BatchedEncoderDecoder`."""
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
    """Whether it is two numbers."""
    return isinstance(value, Sequence) and len(value) == 2
