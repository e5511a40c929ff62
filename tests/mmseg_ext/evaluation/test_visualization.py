"""What MMSegmentation's hook draws keeps the path of its image, and shows the pixels that the network got."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import HOOKS, VISUALIZERS
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_ext import evaluation
from tokenlabel.errors import UserError
from tokenlabel.pictures.stretched import stretched


@pytest.fixture
def drawing(tmp_path, monkeypatch):
    """A hook that draws into `tmp_path/drawn`, and a runner whose data set lies in `tmp_path/images`."""
    visualizer = VISUALIZERS.build(
        dict(
            type='mmseg.SegLocalVisualizer',
            name=str(tmp_path),
            vis_backends=[dict(type='mmseg.LocalVisBackend')],
            save_dir=str(tmp_path / 'drawn'),
            alpha=0.0,
        )
    )
    visualizer.dataset_meta = dict(classes=('leaf', 'fruit'), palette=[[255, 0, 0], [0, 255, 0]])
    hook = HOOKS.build(dict(type='mmseg.SegVisualizationHook', draw=True, interval=1))
    assert type(hook) is evaluation.SegVisualizationHook
    hook._visualizer = visualizer
    loader = SimpleNamespace(dataset=SimpleNamespace(data_prefix=dict(img_path=str(tmp_path / 'images'))))
    cfg = Config(dict(model={}))
    return hook, SimpleNamespace(cfg=cfg, iter=20, val_dataloader=loader, test_dataloader=loader)


def predicted(path, pixels: np.ndarray) -> SegDataSample:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    labels = PixelData(data=torch.zeros(1, *pixels.shape[:2], dtype=torch.long))
    return SegDataSample(pred_sem_seg=labels, metainfo=dict(img_path=str(path)))


def test_images_of_one_name_in_two_folders_are_both_drawn(drawing, tmp_path):
    hook, runner = drawing
    grey = np.full((24, 32, 3), 90, np.uint8)
    outputs = [predicted(tmp_path / 'images' / place / '1.png', grey) for place in ('a', 'b')]
    hook.after_test_iter(runner, 0, {}, outputs)
    hook.after_val_iter(runner, 0, {}, outputs)
    drawn = {
        path.relative_to(tmp_path / 'drawn/vis_data/vis_image').as_posix()
        for path in (tmp_path / 'drawn').rglob('*.png')
    }
    assert drawn == {'a/test_1.png_1.png', 'b/test_1.png_2.png', 'a/val_1.png_20.png'}


def test_drawn_images_are_read_as_for_training(drawing, tmp_path):
    hook, runner = drawing
    ramp = np.linspace(0, 65535, 24 * 32).astype(np.uint16).reshape(24, 32)
    hook.after_test_iter(runner, 0, {}, [predicted(tmp_path / 'images/1.png', ramp)])
    drawn = np.asarray(Image.open(tmp_path / 'drawn/vis_data/vis_image/test_1.png_1.png'))
    np.testing.assert_allclose(drawn[:24, :32, 0], ramp >> 8, atol=1)


def test_images_of_many_channels_are_drawn_by_their_first_three(drawing, tmp_path):
    hook, runner = drawing
    runner.cfg.model.in_channels = 5
    image = np.random.default_rng(0).integers(0, 65536, (24, 32, 5)).astype(np.uint16)
    sample = predicted(tmp_path / 'images/1.png', np.zeros((24, 32, 3), np.uint8))
    np.save(tmp_path / 'images/1.npy', image)
    sample.set_metainfo(dict(img_path=str(tmp_path / 'images/1.npy')))
    hook.after_test_iter(runner, 0, {}, [sample])
    drawn = np.asarray(Image.open(next((tmp_path / 'drawn').rglob('test_*.png'))))
    np.testing.assert_allclose(drawn[:24, :32], stretched(image.astype(np.float32)), atol=1)


def test_a_picture_that_cannot_be_written_is_an_error(drawing, tmp_path):
    hook, runner = drawing
    (tmp_path / 'drawn/vis_data/vis_image').mkdir(parents=True)
    (tmp_path / 'drawn/vis_data/vis_image/a').write_text('in the way')
    with pytest.raises(UserError, match='vis_image'):
        hook.after_test_iter(runner, 0, {}, [predicted(tmp_path / 'images/a/1.png', np.zeros((8, 8, 3), np.uint8))])
