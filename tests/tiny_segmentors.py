"""A segmentor of ours, small enough to run many times, with weights that make its logits differ from pixel to pixel."""

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

import mmseg_ext  # noqa: F401  (registers the names)

WIDTH, CLASSES = 16, 7
NORM = dict(type='BN')


def segmentor(
    head: str = 'UPerHead', num_classes: int = CLASSES, head_options: dict | None = None, **options
) -> nn.Module:
    """A BatchedEncoderDecoder, or another segmentor, over a network of 4 blocks; in evaluation mode."""
    init_default_scope('mmseg')
    pyramid = dict(in_channels=WIDTH, out_channels=24, norm_cfg=NORM)
    shared = dict(num_classes=num_classes, norm_cfg=NORM, align_corners=False, in_index=[0, 1, 2, 3])
    shared |= head_options or {}
    if head == 'UPerHead':
        neck = dict(type='TokenPyramid', **pyramid)
        decode_head = dict(type=head, in_channels=[WIDTH] * 3 + [24], channels=12, pool_scales=(1, 2, 3, 6), **shared)
    else:
        fpn = dict(in_channels=[WIDTH] * 3 + [24], out_channels=12, num_outs=4)
        neck = dict(type='TokenPyramidFPN', pyramid=pyramid, fpn=fpn)
        strides = [4, 8, 16, 16]
        decode_head = dict(type=head, in_channels=[12] * 4, feature_strides=strides, channels=12, **shared)
    config = dict(
        type='BatchedEncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            test_cfg=dict(size_divisor=8),
        ),
        backbone=dict(
            type='LVViT',
            arch=None,
            img_size=32,
            patch_size=8,
            embed_dim=WIDTH,
            depth=4,
            num_heads=2,
            stem_width=8,
            out_indices=(0, 1, 2, 3),
        ),
        neck=neck,
        decode_head=decode_head,
    )
    torch.manual_seed(0)
    model = MODELS.build(config | options).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.5)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight)
    return model
