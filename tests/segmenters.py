"""Tiny segmentation models with random weights, as a config and a checkpoint."""

from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.checks.config_parts import heads_of
from tests.places import CONFIGS
from tokenlabel.engine.config.run_config import load_config, register_imports

DEMO = CONFIGS / 'demo/upernet.py'
CLASSES = tuple(f'digit {i}' for i in range(10))


@MODELS.register_module(force=True)
class TwoConvolutions(BaseModule):
    """A backbone that sees 7 pixels around each of its stride-4 outputs, so that a tile's context can suffice."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(in_channels, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 4, 2, 1), nn.ReLU())

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.layers(images),)


def token_config(**test_cfg) -> Config:
    """The demo's UperNet, tested without annotations, in one piece unless told otherwise."""
    config = load_config(DEMO)
    register_imports(config)
    config.model.type = test_cfg.pop('type', 'EncoderDecoder')
    heads_of(config)  # which get the model's number of classes
    del config.model.num_classes
    config.model.backbone.init_cfg = None
    config.model.decode_head.channels = 16
    config.model.test_cfg = test_cfg or dict(mode='whole')
    return config


def convolution_config(num_classes: int = 7, out_channels: int | None = None) -> Config:
    """Two convolutions and an FCNHead without one."""
    config = token_config()
    head = dict(type='FCNHead', in_channels=8, channels=8, num_convs=0, concat_input=False, in_index=0)
    head |= dict(num_classes=num_classes, norm_cfg=None, align_corners=False)
    if out_channels:
        loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
        head |= dict(out_channels=out_channels, threshold=0.4, loss_decode=loss)
    model = dict(type='EncoderDecoder', backbone=dict(type='TwoConvolutions'), decode_head=head)
    config.model = model | dict(data_preprocessor=config.model.data_preprocessor, test_cfg=dict(mode='whole'))
    return config


def write_checkpoint(config: Config, path: Path, rename: Callable[[str], str] = str, **meta) -> Path:
    """Random weights that give all kinds of classes."""
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    for x in model.parameters():
        nn.init.normal_(x, 1.0 if x.ndim == 1 else 0.0, 0.5)
    state = {rename(name): x for name, x in model.state_dict().items()}
    torch.save({'meta': meta, 'state_dict': state}, path)
    return path


def write_model(folder: Path) -> list[str]:
    """A segmentation model of ten classes, and the arguments that name it."""
    config = convolution_config(num_classes=10)
    config.dump(folder / 'config.py')
    checkpoint = write_checkpoint(config, folder / 'c.pth', dataset_meta=dict(classes=CLASSES, palette=None))
    return ['--config', str(folder / 'config.py'), '--checkpoint', str(checkpoint), '--device', 'cpu']
