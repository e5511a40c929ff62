"""A trained segmentation model as a function of an image."""

import copy
import functools
import re
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmseg.registry import DATASETS, MODELS
from torch import Tensor, nn

from mmseg_ext.checkpoints.segmentation_weights import in_names_of, local_path, weights_of
from mmseg_ext.checkpoints.strict_loading import load_all
from mmseg_ext.checks.class_weight import settle_class_weight
from mmseg_ext.checks.in_channels import check_statistics, in_channels_of, settle_in_channels
from mmseg_ext.checks.num_classes import settle_num_classes
from mmseg_ext.datasets.load_image import without_single_axis
from mmseg_ext.inference.image_pixels import AnyImage, image_channels, image_pixels
from mmseg_ext.inference.peak_memory import peak_bytes
from mmseg_ext.inference.segmentation import Segmentation
from mmseg_ext.inference.tiles import Interpolation, SlidingTiles, Tile, WholeTiles, labels_of, tiles
from mmseg_ext.segmentors import BatchedEncoderDecoder
from tokenlabel.checkpoints.conversion import dataset_meta_of
from tokenlabel.checkpoints.weights import read_checkpoint
from tokenlabel.devices import usable_device
from tokenlabel.engine.config.run_config import explains_errors, load_config, register_imports
from tokenlabel.errors import UserError, is_out_of_memory
from tokenlabel.pictures.labels import class_palette
from tokenlabel.pictures.stretched import stretched

GIB = 2**30
# Tiles begin at a multiple of this, which is a multiple of all usual patch sizes and strides.
ALIGN = 32
# Memory is counted at sizes rounded up to this, so that a folder of photographs needs few counts.
COUNTED_STEP = 128
# Safety factor on the counted memory, for workspace inside kernels: 1.09 to 1.28 were measured.
KERNELS_SHARE = 1.3
# float32 copies of an input while it is normalised and padded
INPUT_COPIES = 4
# Of the logits at the labels' own size, as many rows are made at a time as fit these bytes, or this part of the limit.
BAND_BYTES, BAND_PART = 32 * 2**20, 8
# of the summed logits while windows are added: the sum, a padded window, the mean
SUM_COPIES = 3
# A resized image has no side thinner than this share of the other, or it would vanish.
THINNEST = 1 / 256


class Segmenter:
    """Segments images of any size and kind as the config's evaluation would.

    An image is resized by the test pipeline and segmented in one piece or by sliding windows, as `test_cfg` says. The
    scores are interpolated to the image's own size. If that needs more than `memory_limit`, the image is segmented tile
    by tile. With sliding windows, tiles give the same labels up to rounding. In one piece, they give the same labels if
    `tile_margin` covers the context on which the labels depend.

        segmenter = Segmenter('configs/upernet_lvvit.py', 'work_dirs/upernet_lvvit/iter_160000.pth')
        segmenter('street.jpg').overlay().show()

    Args:
        config: path of a config file, or a loaded `mmengine.Config`.
        checkpoint: path or URL of a segmentation model, ours or a released one.
        device: 'cpu', 'cuda' or 'cuda:N'; None uses the GPU if there is one.
        memory_limit: maximum bytes of tensors on the device for an image, without the model's weights, the image and
            its labels; None segments every image in one piece. A file is refused if its image needs more than this
            limit at ten bytes per pixel: at 4 GiB, more than 429 million pixels.
        tile_margin: pixels of context around a tile, in the resized image; None uses a quarter of the training crop.

    Raises:
        UserError: a file cannot be read, or the weights do not fit the config's model.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str | torch.device | None = None,
        memory_limit: int | None = 4 * GIB,
        tile_margin: int | None = None,
    ) -> None:
        name = getattr(config, 'filename', None) if isinstance(config, Config) else config
        config = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
        register_imports(config)
        self.device = usable_device(device)
        self.memory_limit = memory_limit
        self._band_bytes = min(BAND_BYTES, (memory_limit or GIB) // BAND_PART)
        with explains_errors(name or 'given', config):
            if not isinstance((config.get('model') or {}).get('backbone'), dict):
                raise UserError(
                    f'Config {name or "given"} has no segmentation model: give one with a backbone and heads.'
                )
            settle_num_classes(config)
            settle_in_channels(config)
            check_statistics(config)
            settle_class_weight(config, train=False)
            self.model = _build(config.model)
            self._pipeline = Compose(resizing_pipeline(config))
        self._is_grey = reads_grey(config)
        self._in_channels = in_channels_of(config)
        stored = load_segmentation_model(self.model, checkpoint)
        self._source = checkpoint
        self.model.to(self.device).eval()
        binary = self.model.out_channels == 1
        self._threshold = self.model.decode_head.threshold if binary else None
        self.num_classes = max(self.model.num_classes, 2)
        self.class_names, self.palette = class_meta(self.num_classes, stored, config)
        self._reaches = self._plan(tile_margin)
        # normalises without padding; padding is added to tiles at the image's end
        self._normalise = copy.copy(self.model.data_preprocessor)
        self._normalise.test_cfg = None
        self._counted = functools.cache(self._count)

    @torch.no_grad()
    def __call__(self, image: AnyImage) -> Segmentation:
        """Segments an image.

        Args:
            image: see `image_pixels` in `mmseg_ext.inference.image_pixels`; with `model.in_channels` in the config,
                `image_channels` there. What is then shown of it is `tokenlabel.pictures.stretched`.

        Raises:
            UserError: the image cannot be read, its smallest tile needs more memory than the limit or the device
                allows, or the logits are NaN or infinite.
        """
        if self._in_channels is None:
            pixels = image_pixels(image, self.memory_limit)
        else:
            pixels = image_channels(image, self._in_channels, self.memory_limit)
        height, width = pixels.shape[:2]
        thick = _thickened(pixels)
        try:
            labels = self._labels(thick)[:height, :width]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f'{self.device} is out of memory: give a smaller memory_limit') from error
        if self._in_channels is not None:
            pixels = stretched(pixels)
        return Segmentation(pixels, np.ascontiguousarray(labels), self.class_names, self.palette)

    def _labels(self, pixels: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 or uint16 [H, W]."""
        size = pixels.shape[:2]
        # as from LoadImageFromFile; there is no other reference, so it is freed once resized
        if self._in_channels is None:
            image = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY if self._is_grey else cv2.COLOR_RGB2BGR)
        else:
            image = without_single_axis(pixels)
        loaded = dict(img=image, img_path='', img_shape=size, ori_shape=size)
        del image
        resized = self._pipeline(loaded)['inputs']
        del loaded
        shape = tuple(resized.shape[1:])
        padded = self._padded(shape)
        interpolations = tuple(
            Interpolation.between(there, output_side, self.model.align_corners)
            for there, output_side in zip(shape, size, strict=True)
        )
        labels = np.empty(size, np.uint8 if self.num_classes <= 255 else np.uint16)
        for tile in self._tiles(interpolations, padded):
            logits = self._logits(resized, tile, padded)
            if not logits.isfinite().all():
                raise UserError(f'{self._source} gives NaN or infinite logits: take another checkpoint')
            for row, band in labels_of(logits, tile, interpolations, self._band_bytes, self._threshold):
                labels[row : row + len(band), slice(*tile.cols)] = band.cpu().numpy()
        return labels

    def _logits(self, image: Tensor, tile: Tile, padded: tuple[int, int]) -> Tensor:
        """Logits float32 [num_classes, h, w] of a tile of the resized image [C, H, W], without padding."""
        (top, bottom), (left, right) = tile.input_rows, tile.input_cols
        part = image[:, top:bottom, left:right]
        height, width = part.shape[1:]
        inputs = self._normalise({'inputs': [part.to(self.device)]}, False)['inputs']
        inputs = F.pad(inputs, (0, right - left - width, 0, bottom - top - height), value=self._normalise.pad_val)
        logits = self.model.inference(inputs, [_meta(inputs)])
        return logits[0, :, :height, :width].float()

    def _padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width after the data preprocessor's padding of test images."""
        padding = self.model.data_preprocessor.test_cfg or {}
        if fixed := padding.get('size'):
            return max(size[0], fixed[0]), max(size[1], fixed[1])
        divisor = padding.get('size_divisor') or 1
        return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor

    def _plan(self, margin: int | None) -> tuple[WholeTiles | SlidingTiles, ...]:
        """The rules for a tile's input range, along rows and columns."""
        test_cfg = self.model.test_cfg
        if test_cfg.get('mode', 'whole') == 'slide':
            return tuple(
                SlidingTiles(crop, stride) for crop, stride in zip(test_cfg.crop_size, test_cfg.stride, strict=True)
            )
        crop = self.model.data_preprocessor.size or (512, 512)
        return tuple(WholeTiles(side // 4 if margin is None else margin, ALIGN) for side in crop)

    def _tiles(self, interpolations: tuple[Interpolation, Interpolation], padded: tuple[int, int]) -> list[Tile]:
        """The smallest number of tiles within the memory limit."""
        pieces = [1, 1]
        while True:
            plan = list(tiles(tuple(pieces), interpolations, self._reaches, padded))
            if self.memory_limit is None:
                return plan
            height, width = (max(stop - start for start, stop in axis) for axis in zip(*map(_reach, plan), strict=True))
            needed = self._needed(height, width)
            if needed <= self.memory_limit:
                return plan
            outputs = [
                len(interpolation.lower) // number for interpolation, number in zip(interpolations, pieces, strict=True)
            ]
            axis = int(outputs[1] > outputs[0])
            smallest = ALIGN * len(interpolations[axis].lower) // padded[axis]
            at_once = windows_at_once(self.model)
            if outputs[axis] <= max(smallest, 1) and self._sliding and at_once > 1:
                # use smaller batches of windows, also for later images, which are usually as large
                self.model.test_cfg['windows_per_batch'] = at_once // 2
                self._counted.cache_clear()
                pieces = [1, 1]
                continue
            if outputs[axis] <= max(smallest, 1):
                raise UserError(
                    f'the smallest tile needs {needed / 2**20:.0f} MiB of memory: raise memory_limit from '
                    f'{self.memory_limit / 2**20:.0f} MiB'
                )
            pieces[axis] *= 2

    def _needed(self, height: int, width: int) -> int:
        """Bytes needed by a tile with an input of this size."""
        pixels = height * width
        image = (self._in_channels or 3) * 4 * pixels
        if self._sliding:
            window = tuple(min(reach.crop, side) for reach, side in zip(self._reaches, (height, width), strict=True))
            logit_bytes = 4 * self.model.out_channels
            total = logit_bytes * pixels
            last = logit_bytes * windows_at_once(self.model) * window[0] * window[1]
            model = max(self._counted(*window) + total, SUM_COPIES * total + last)
        else:
            model = self._counted(*(-(-side // COUNTED_STEP) * COUNTED_STEP for side in (height, width)))
        return max(INPUT_COPIES * image, image + model + self._band_bytes)

    @property
    def _sliding(self) -> bool:
        return isinstance(self._reaches[0], SlidingTiles)

    def _count(self, height: int, width: int) -> int:
        """Bytes that the model needs for one input, or for one batch of windows."""
        batch = windows_at_once(self.model) if self._sliding else 1
        channels = self._in_channels or (1 if self._is_grey else 3)

        def run() -> Tensor:
            inputs = torch.empty(batch, channels, height, width, device=self.device)
            if self._sliding:
                return self.model.encode_decode(inputs, [_meta(inputs)] * batch)
            return self.model.inference(inputs, [_meta(inputs)])

        return round(KERNELS_SHARE * peak_bytes(self.model, run))


def windows_at_once(model: nn.Module) -> int:
    """Number of sliding windows per forward pass."""
    if not isinstance(model, BatchedEncoderDecoder):
        return 1
    return model.windows_per_batch


def load_segmentation_model(model: nn.Module, source: str | Path) -> dict:
    """Loads a segmentation model without its auxiliary heads, which are used in training only.

    Args:
        model: an `EncoderDecoder`.
        source: path or URL of a checkpoint, ours or a released one; EMA weights are preferred.

    Returns:
        `classes` and `palette` of the checkpoint, as far as it has them.

    Raises:
        UserError: the checkpoint cannot be read, or as `load_all`.
    """
    checkpoint = read_checkpoint(local_path(source))
    state = in_names_of(model, weights_of(checkpoint, source), source)
    state = {name: x for name, x in state.items() if not re.match(r'auxiliary_head\b', name)}
    load_all(model, state, source)
    return dataset_meta_of(checkpoint)


def class_meta(num_classes: int, stored: dict, config: Config) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and colours of the classes: from the checkpoint, else from the config's data set, else generated.

    Args:
        num_classes: number of the model's classes.
        stored: `classes` and `palette` of the checkpoint.
        config: the config.

    Returns:
        Names, and uint8 [C, 3].
    """
    dataset = _innermost_dataset(config)
    kind = DATASETS.get(dataset.type) if isinstance(dataset.get('type'), str) else dataset.get('type')
    sources = [stored, dataset.get('metainfo') or {}, getattr(kind, 'METAINFO', {})]
    names = next((s['classes'] for s in sources if _fits(s.get('classes'), num_classes)), None)
    names = names or [f'class {label}' for label in range(num_classes)]
    palette = next((s['palette'] for s in sources if _fits(s.get('palette'), num_classes)), None)
    return tuple(map(str, names)), np.array(palette or class_palette(num_classes), np.uint8)


def resizing_pipeline(config: Config) -> list[dict]:
    """The config's test transforms without those that load files.

    Raises:
        UserError: the config has no test data.
    """
    return [step for step in _pipeline(config) if not step['type'].startswith('Load')]


def reads_grey(config: Config) -> bool:
    """Whether the config's test images have one channel."""
    return any(step.get('color_type') == 'grayscale' for step in _pipeline(config))


def _pipeline(config: Config) -> list[dict]:
    pipeline = _innermost_dataset(config).get('pipeline') or config.get('test_pipeline')
    if not pipeline:
        raise UserError('the config has no test_dataloader, whose pipeline says how to resize images: add one')
    return pipeline


def _innermost_dataset(config: Config) -> ConfigDict:
    """The test data set inside its wrappers."""
    dataset = (config.get('test_dataloader') or {}).get('dataset') or ConfigDict()
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def _build(config: ConfigDict) -> nn.Module:
    """The model without auxiliary heads and without pretrained weights, because a checkpoint is loaded next."""
    config = copy.deepcopy(config)
    config.auxiliary_head = None
    for part in (config, config.backbone):
        part.pop('pretrained', None)
        part.pop('init_cfg', None)
    return MODELS.build(config)


def _meta(inputs: Tensor) -> dict:
    """MMSegmentation's meta information of an image of the size of `inputs`."""
    size = inputs.shape[2:]
    return dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0, 0, 0, 0])


def _reach(tile: Tile) -> tuple[tuple[int, int], tuple[int, int]]:
    return tile.input_rows, tile.input_cols


def _thickened(pixels: np.ndarray) -> np.ndarray:
    """The image; if it is so thin that resizing would remove it, its edge is repeated downwards or to the right."""
    height, width = pixels.shape[:2]
    thinnest = int(np.ceil(max(height, width) * THINNEST))
    more = max(thinnest - height, 0), max(thinnest - width, 0)
    return np.pad(pixels, ((0, more[0]), (0, more[1]), (0, 0)), mode='edge') if any(more) else pixels


def _fits(values: object, num_classes: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == num_classes
