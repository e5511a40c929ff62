"""Names and shapes of the released segmentation files, written out, and files made with them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tests.fixtures_io import load_json

# Of each file: the classifier its blocks are those of, and what the release's own config states.
RELEASED = {
    's': dict(classifier='lvvit_s@384', dim=384, grid=32, channels=256, parameters=44.45e6),
    'm': dict(classifier='lvvit_m@448', dim=512, grid=32, channels=256, parameters=77.27e6),
    'l': dict(classifier='lvvit_l@448', dim=768, grid=28, channels=512, parameters=208.55e6),
}
CLASSES = 150
NORM = ('weight', 'bias', 'running_mean', 'running_var')

Shapes = dict[str, tuple[int, ...]]


def released_shapes(size: str) -> Shapes:
    """Every name in `upernet_lvvit_{size}.pth` with its shape, in MMSegmentation 0.x's names."""
    of = RELEASED[size]
    blocks = {
        name: tuple(shape)
        for name, shape in load_json('released_models')[of['classifier']]['state'].items()
        if not name.startswith(('norm.', 'head.', 'aux_head.'))
    }
    blocks['pos_embed'] = (1, of['grid'] ** 2 + 1, of['dim'])
    backbone = blocks | pyramid_shapes(of['dim'], 2048)
    return {f'backbone.{name}': x for name, x in backbone.items()} | head_shapes(of['dim'], 2048, of['channels'])


def pyramid_shapes(dim: int, top: int) -> Shapes:
    """`side_layer1` to `side_layer4`: transposed convolutions, then 1x1 convolutions, each with its norm."""
    shapes = {}
    for i, factor in ((1, 4), (2, 2)):
        shapes[f'side_layer{i}.0.weight'] = (dim, dim, factor, factor)
        shapes |= norm_shapes(f'side_layer{i}.1', dim)
        shapes[f'side_layer{i}.3.weight'] = (dim, dim, 1, 1)
        shapes |= norm_shapes(f'side_layer{i}.4', dim)
    for i, width in ((3, dim), (4, top)):
        shapes[f'side_layer{i}.0.weight'] = (width, dim, 1, 1)
        shapes |= norm_shapes(f'side_layer{i}.1', width)
    return shapes


def head_shapes(dim: int, top: int, channels: int, classes: int = CLASSES) -> Shapes:
    """UPerHead and the auxiliary FCNHead."""
    shapes = {}
    for i in range(4):
        shapes |= conv_shapes(f'decode_head.psp_modules.{i}.1', top, channels, 1)
    shapes |= conv_shapes('decode_head.bottleneck', top + 4 * channels, channels, 3)
    for i in range(3):
        shapes |= conv_shapes(f'decode_head.lateral_convs.{i}', dim, channels, 1)
        shapes |= conv_shapes(f'decode_head.fpn_convs.{i}', channels, channels, 3)
    shapes |= conv_shapes('decode_head.fpn_bottleneck', 4 * channels, channels, 3)
    shapes |= conv_shapes('auxiliary_head.convs.0', dim, channels, 3)
    for head in ('decode_head', 'auxiliary_head'):
        shapes |= {f'{head}.conv_seg.weight': (classes, channels, 1, 1), f'{head}.conv_seg.bias': (classes,)}
    return shapes


def conv_shapes(name: str, dim: int, width: int, kernel: int) -> Shapes:
    return {f'{name}.conv.weight': (width, dim, kernel, kernel)} | norm_shapes(f'{name}.bn', width)


def norm_shapes(name: str, width: int) -> Shapes:
    return {f'{name}.{kind}': (width,) for kind in NORM} | {f'{name}.num_batches_tracked': ()}


def random_weights(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Small random weights; what are counts, variances and scales of norms are positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith('num_batches_tracked'):
            state[name] = torch.tensor(160000)
        elif name.endswith('running_var'):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            state[name] = torch.randn(shape, generator=generator) * 0.02
    return state


def write_released(path: Path, state: Mapping[str, Tensor], **meta) -> Path:
    """A file as MMSegmentation 0.x leaves it after training, ready to publish."""
    kept = dict(mmseg_version='0.14.0', CLASSES=('wall', 'building'), PALETTE=[[120, 120, 120], [180, 120, 120]])
    kept |= dict(config='norm_cfg = dict(type="SyncBN")', seed=None, epoch=127, iter=160000, hook_msgs={}) | meta
    torch.save({'meta': kept, 'state_dict': dict(state)}, path)
    return path
