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

TWO_BLOCKS = {'embed_dim': 32, 'depth': 2, 'num_heads': 2}
SWIN_CR = {'img_size': 64, 'embed_dim': 16, 'depths': (1, 1), 'num_heads': (1, 2)}
GEMMA = TWO_BLOCKS | {'head_dim': 16, 'intermediate_size': 64, 'position_embedding_size': 64}

CONVNEXT = {'depths': (1, 1, 1, 1), 'dims': (8, 16, 24, 32)}
FOUR_STAGES = {'embed_dims': (16, 16, 16, 16), 'num_heads': (1, 1, 1, 1), 'depths': (1, 1, 1, 1)}

# Arguments that make an architecture of timm small, and a size of image for it.
SMALLER = {
    'beit_base_patch16_224': (VIT, 32),
    'cait_xxs24_224': (VIT, 32),
    'convnext_tiny': (CONVNEXT, 64),
    'convnextv2_tiny': (CONVNEXT, 64),
    'convnext_tiny_hnf': (CONVNEXT, 64),
    'convmixer_768_32': ({}, 70),
    'crossvit_tiny_240': ({}, 240),
    'csatv2': ({}, 128),
    'davit_tiny': (FOUR_STAGES, 128),
    'deepseek_vit_412m': (TWO_BLOCKS, 84),
    'deepseek_vit_412m_enc': (TWO_BLOCKS | {'out_features': 32}, 84),
    'deit3_small_patch16_224': (VIT, 32),
    'deit_tiny_distilled_patch16_224': (VIT, 32),
    'dm_nfnet_f6': ({'depths': (1, 1, 1, 1), 'channels': (16, 32, 32, 32), 'num_features': 48, 'group_size': 8}, 128),
    'efficientformer_l1': ({}, 224),
    'eva02_tiny_patch14_336': (VIT, 32),
    'gemma4_vit_167m': (GEMMA, 96),
    'gemma4_vit_167m_enc': (GEMMA, 96),
    'hieradet_small': ({'embed_dim': 24, 'stages': (1, 1, 1, 1), 'global_att_blocks': ()}, 128),
    'hiera_tiny_224': ({'embed_dim': 24, 'stages': (1, 1, 1, 1)}, 128),
    'levit_128s': ({}, 256),
    'lvvit_s': (LVVIT, 32),
    'maxvit_tiny_tf_224': ({'embed_dim': (32, 32, 32, 32), 'depths': (1, 1, 1, 1)}, 128),
    'mobilenetv5_300m_enc': ({'channel_multiplier': 0.1}, 128),
    'mobilenetv5_base': ({'channel_multiplier': 0.1}, 128),
    'naflexvit_base_patch16_gap': (TWO_BLOCKS, 64),
    'naflexvit_base_patch16_map': (TWO_BLOCKS, 64),
    'qwen3_vit_88m': (TWO_BLOCKS, 64),
    'qwen3_vit_88m_enc': (TWO_BLOCKS | {'out_features': 32}, 64),
    'res2next50': ({'layers': (1, 1, 1, 1)}, 64),
    'samvit_base_patch16_224': (TWO_BLOCKS, 64),
    'sequencer2d_s': ({'layers': (1, 1, 1, 1)}, 112),
    'swin_tiny_patch4_window7_224': (SWIN, 64),
    'swinv2_cr_tiny_224': (SWIN_CR, 64),
    'swinv2_tiny_window8_256': (SWIN, 64),
    'tnt_s_patch16_224': ({'depth': 2}, 64),
    'tresnet_m': ({'layers': (1, 1, 1, 1)}, 96),
    'twins_svt_small': (FOUR_STAGES, 128),
    'vgg11': ({'mlp_ratio': 0.01}, 64),
    'vit_little_patch16_reg4_gap_256': (VIT, 32),
    'vit_medium_patch16_gap_256': (VIT, 32),
    'vit_pe_core_tiny_patch16_384': (VIT, 32),
    'vit_relpos_medium_patch16_cls_224': (VIT, 32),
    'vit_relpos_small_patch16_224': (VIT, 32),
    'vit_small_patch16_rope_224': (VIT, 32),
    'vit_so150m_patch16_reg4_map_256': (VIT, 32),
    'vit_srelpos_small_patch16_224': (VIT, 32),
    'vit_tiny_patch16_224': (VIT, 32),
    'vit_tiny_patch16_dinov3_qkvb': (VIT, 32),
    'vit_tiny_r_s16_p8_224': ({'depth': 2}, 128),
    'vitamin_small_224': ({'depth': 2}, 128),
    'xcit_nano_12_p8_224': ({'embed_dim': 32, 'depth': 2}, 64),
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
