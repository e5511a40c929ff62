"""Replacements of the image loading transforms of MMCV and MMSegmentation that use this project's image reader."""

import cv2
import mmcv.transforms
import mmseg.datasets
import numpy as np
from mmseg.registry import TRANSFORMS

from mmseg_ext.datasets.read_image import read_image
from tokenlabel.errors import UserError
from tokenlabel.image_files.channels import channels_of_array
from tokenlabel.image_files.eight_bits import rgb_of_array
from tokenlabel.image_files.unreadable import UnreadableImage

COLOR_TYPES = ('color', 'grayscale')
BACKENDS = ('cv2', 'pillow', 'turbojpeg')


@TRANSFORMS.register_module(force=True)
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """MMCV's `LoadImageFromFile` with the image reader that annotation, pretraining and `Segmenter` also use.

    Args:
        to_float32: return float32 instead of uint8, with the same values.
        color_type: 'color' for BGR [H, W, 3]; 'grayscale' for [H, W].
        imdecode_backend: accepted for configs of MMSegmentation; every value selects the same reader.
        ignore_empty: return None for a file that cannot be read; the dataset then loads another image.
        in_channels: return the stored values unchanged, float32 [H, W, in_channels] in the file's channel order, or
            [H, W] if there is one channel. `to_float32` and `color_type` then have no effect. Set by
            `model.in_channels`.
        backend_args: MMEngine file backend.

    Raises:
        UserError: the reader does not support `color_type` or `imdecode_backend`.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        ignore_empty: bool = False,
        *,
        in_channels: int | None = None,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(to_float32, color_type, imdecode_backend, None, ignore_empty, backend_args=backend_args)
        self.in_channels = in_channels
        if color_type not in COLOR_TYPES:
            raise UserError(
                f'LoadImageFromFile does not support color_type={color_type!r}, only upright 8-bit images: '
                f'choose one of {", ".join(COLOR_TYPES)}.'
            )
        if imdecode_backend not in BACKENDS:
            raise UserError(f'LoadImageFromFile does not support imdecode_backend={imdecode_backend!r}: leave it out.')

    def transform(self, results: dict) -> dict | None:
        """Adds `img`, `img_shape` and `ori_shape`.

        Raises:
            UserError: the file cannot be read, or has another number of channels.
        """
        try:
            image = read_image(results['img_path'], self.in_channels, self.backend_args)
        except UserError:
            if self.ignore_empty:
                return None
            raise
        if self.in_channels is not None:
            return _with_image(results, without_single_axis(image))
        code = cv2.COLOR_RGB2BGR if self.color_type == 'color' else cv2.COLOR_RGB2GRAY
        image = cv2.cvtColor(image, code, dst=image if self.color_type == 'color' else None)
        return _with_image(results, image, self.to_float32)


@TRANSFORMS.register_module(force=True)
class LoadImageFromNDArray(mmseg.datasets.LoadImageFromNDArray):
    """MMSegmentation's `LoadImageFromNDArray` for arrays of any dtype, which are converted to 8 bits as files are.

    Channels are BGR for [H, W, 3] and BGR with opacity for [H, W, 4].

    Args:
        in_channels: as in `LoadImageFromFile`: return the values unchanged.
        **kwargs: other arguments of MMSegmentation's `LoadImageFromNDArray`.
    """

    def __init__(self, in_channels: int | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.in_channels = in_channels

    def transform(self, results: dict) -> dict:
        """Adds `img`, `img_path`, `img_shape` and `ori_shape`.

        Raises:
            UserError: the array has an unsupported shape, or values out of range.
        """
        try:
            array = np.asarray(results['img'])
            if self.in_channels is None:
                image = rgb_of_array(array)
            else:
                image = without_single_axis(channels_of_array(array, self.in_channels))
        except UnreadableImage as error:
            raise UserError(f'The image has {error}: {error.remedy}.') from error
        results['img_path'] = None
        return _with_image(results, image, self.to_float32)


def without_single_axis(image: np.ndarray) -> np.ndarray:
    """Drops the axis of a single channel, [H, W, 1] -> [H, W], as OpenCV does after each transform."""
    return image[..., 0] if image.shape[2] == 1 else image


def _with_image(results: dict, image: np.ndarray, to_float32: bool = False) -> dict:
    image = image.astype(np.float32) if to_float32 else image
    results |= dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
    return results
