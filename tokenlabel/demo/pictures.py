"""The demo's three pictures: a label map over its image, token predictions, segmentations beside the ground truth."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

from mmseg_ext import Segmenter
from mmseg_ext.datasets.load_label_map import read_label_map
from mmseg_ext.datasets.mask_classes import counted_classes
from mmseg_ext.inference.image_pixels import image_pixels
from tokenlabel.data.digit_scenes import CLASSES, PALETTE, SEGMENTATION_CLASSES
from tokenlabel.demo.stages import Stages
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.runner import Runner
from tokenlabel.labels.store import LabelStore
from tokenlabel.pictures.labels import label_map_figure, save_figure, segmentation_figure, token_predictions_figure

NUM_EXAMPLES = 6


def draw_pictures(stages: Stages) -> list[Path]:
    """Writes the pictures beside the report and returns their paths."""
    stages.say('\n> draw pictures')
    return [draw_label_maps(stages), draw_token_predictions(stages), draw_segmentations(stages)]


def draw_label_maps(stages: Stages) -> Path:
    """What the annotator wrote about the first training images of different classes."""
    store = LabelStore(stages.labels)
    rows = np.linspace(0, len(store) - 1, NUM_EXAMPLES).astype(int)
    images = [open_image(stages.scenes / 'imagenet/train' / store.keys[row]) for row in rows]
    figure = label_map_figure(images, [store[int(row)] for row in rows], store.class_names, PALETTE[1:])
    return save_figure(figure, stages.work_dir / 'label_maps.png')


def draw_token_predictions(stages: Stages) -> Path:
    """The pretrained model's best class for every token of validation images."""
    paths = sorted((stages.scenes / 'ade/images/validation').iterdir())[:NUM_EXAMPLES]
    model = load_pretrained(stages)
    images = [open_image(path) for path in paths]
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    network, grid = model.model, model.model.patch_embed.grid_size
    with torch.no_grad():
        batch = model.data_preprocessor({'image': pixels})['batch']
        logits = network.token_logits(network.forward_features(batch['image']))
    logits = logits.unflatten(1, grid)
    figure = token_predictions_figure(images, list(logits), CLASSES, PALETTE[1:])
    return save_figure(figure, stages.work_dir / 'token_predictions.png')


def draw_segmentations(stages: Stages) -> Path:
    """Both heads beside the ground truth, on validation images."""
    paths = sorted((stages.scenes / 'ade/images/validation').iterdir())[:NUM_EXAMPLES]
    images = [open_image(path) for path in paths]
    annotations = [stages.scenes / 'ade/annotations/validation' / f'{path.stem}.png' for path in paths]
    truths = [read_label_map(path, counted_classes(None, reduce_zero_label=True)) for path in annotations]
    predictions = {}
    for name, head in (('UperNet', 'upernet'), ('Semantic FPN', 'fpn')):
        segmenter = Segmenter(f'demo/{head}', stages.checkpoint(head), 'cpu')
        predictions[name] = [segmenter(path).labels for path in paths]
    figure = segmentation_figure(images, predictions, truths, SEGMENTATION_CLASSES, PALETTE)
    return save_figure(figure, stages.work_dir / 'segmentation.png')


def load_pretrained(stages: Stages) -> torch.nn.Module:
    """The pretrained model, in evaluation mode on the CPU."""
    config: Config = load_config('demo/pretrain')
    register_imports(config)
    # only model and checkpoint: no loaders are built
    work_dir = str(stages.work_dir / 'pretrain/pictures')
    runner = Runner(config.model, work_dir, default_scope=config.default_scope, log_level='ERROR')
    runner.load_checkpoint(str(stages.checkpoint('pretrain')))
    return runner.model.cpu().eval()


def open_image(path: Path) -> Image.Image:
    """An RGB picture."""
    return Image.fromarray(image_pixels(path))
