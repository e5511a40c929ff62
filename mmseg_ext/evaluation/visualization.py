"""MMSegmentation's drawn predictions, with this package's image reader and the path of their image."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import mmengine.visualization
import mmseg.engine
import numpy as np
from mmengine.runner import Runner
from mmengine.visualization.vis_backend import force_init_env
from mmseg.registry import HOOKS, VISBACKENDS
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

from mmseg_ext.checks.in_channels import in_channels_of
from mmseg_ext.datasets.read_image import read_picture
from mmseg_ext.evaluation.prediction_files import ImagePlaces
from tokenlabel.files.output_names import output_name
from tokenlabel.files.writing import write_atomically


@HOOKS.register_module(force=True)
class SegVisualizationHook(mmseg.engine.SegVisualizationHook):
    """MMSegmentation's `SegVisualizationHook`; the drawing of `a/1.jpg` is named `a/val_1.jpg` or `a/test_1.jpg`."""

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[SegDataSample]
    ) -> None:
        """Draws the first image of every `interval`th batch."""
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            self._draw(outputs[0], 'val', runner, runner.val_dataloader.dataset, step)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[SegDataSample]
    ) -> None:
        """Draws every image."""
        for sample in outputs if self.draw else ():
            self._test_index += 1
            self._draw(sample, 'test', runner, runner.test_dataloader.dataset, self._test_index)

    def _draw(self, sample: SegDataSample, split: str, runner: Runner, dataset: Dataset, step: int) -> None:
        image = read_picture(sample.img_path, in_channels_of(runner.cfg), self.backend_args)
        folder, name = os.path.split(ImagePlaces(dataset).of(sample.img_path))
        self._visualizer.add_datasample(
            os.path.join(folder, f'{split}_{name}'),
            image,
            data_sample=sample,
            show=self.show,
            wait_time=self.wait_time,
            step=step,
        )


@VISBACKENDS.register_module()
class LocalVisBackend(mmengine.visualization.LocalVisBackend):
    """MMEngine's `LocalVisBackend`, but pictures may be in subfolders, and a failed write is an error."""

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        """Writes an RGB image [H, W, 3], uint8, as a PNG file."""
        _, picture = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        write_atomically(Path(self._img_save_dir, output_name(f'{name}_{step}.png', '.png')), picture.tobytes())
