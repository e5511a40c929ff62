"""Small classifiers with random weights, for tests of annotators."""

from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn

VIT = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2}
SWIN = {'img_size': 64, 'window_size': 2, 'embed_dim': 16, 'depths': (1, 1), 'num_heads': (1, 2)}
MIXER = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'num_blocks': 2}
NFNET = {'depths': (1, 1), 'channels': (16, 32), 'num_features': 48, 'group_size': 8}
LVVIT = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2, 'stem_width': 8}
OUTLOOKER = {
    'img_size': 64,
    'layers': (1, 1),
    'embed_dims': (24, 24),
    'num_heads': (2, 2),
    'downsamples': (True, False),
    'outlook_attention': (True, False),
}


def tiny(architecture: str | Callable[..., nn.Module], **kwargs) -> nn.Module:
    """A small classifier with random weights, in the head as well, where timm begins with zeros."""
    torch.manual_seed(0)
    make = partial(timm.create_model, architecture) if isinstance(architecture, str) else architecture
    model = make(num_classes=7, **kwargs).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def noise(size: int = 32, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
