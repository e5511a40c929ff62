"""Which of timm's classifiers can annotate, and how the scores of a location arise in each.

`DenseClassifier` decides by trying; this table says beforehand what it finds, for the families of timm 1.0.31.
"""

from collections.abc import Iterable
from typing import NamedTuple

LINEAR = 'linear'
NORMALISED = 'normalised per location'
HIDDEN = 'hidden layers per location'
ATTENTION = 'attention pooling per location'
PATCHES = 'class head on patch tokens'
TOKEN_HEAD = 'token head'
REFUSED = 'refused'

MEANINGS = {
    LINEAR: "the head is linear after average pooling: the mean of the map is the model's own output",
    NORMALISED: 'the normalisation after the pooling, and what follows it, sees each location on its own',
    HIDDEN: 'the hidden layers after the pooling see each location on their own',
    ATTENTION: 'the attention that pools the locations sees each on its own',
    PATCHES: 'the head was trained on the class token; the patch tokens take its place',
    TOKEN_HEAD: 'the model has a head for its patch tokens, which takes part in its score',
    REFUSED: 'there are no faithful scores per location',
}

ONE_MAP = 'its features are not one feature map'
NO_CLASSES = 'it has no classes'
NO_PADDING = 'its convolutions have no padding'


class Family(NamedTuple):
    """Models of one timm module whose maps arise in the same way.

    Attributes:
        module: timm's module, as in `timm.list_modules()`.
        example: an architecture of the family.
        maps: how its maps arise, a key of `MEANINGS`.
        reason: why it is refused, as `DenseClassifier` words it; else empty.
    """

    module: str
    example: str
    maps: str
    reason: str = ''


# A module has a row for each way that occurs among its architectures.
FAMILIES = (
    Family('beit', 'beit_base_patch16_224', NORMALISED),
    Family('byoanet', 'eca_botnext26ts_256', LINEAR),
    Family('byobnet', 'repvgg_a0', LINEAR),
    Family('byobnet', 'resnet50_mlp', HIDDEN),
    Family('byobnet', 'resnet50_clip', REFUSED, 'its head depends on the number of locations'),
    Family('cait', 'cait_xxs24_224', PATCHES),
    Family('coat', 'coat_lite_tiny', PATCHES),
    Family('coat', 'coat_tiny', REFUSED, ONE_MAP),
    Family('convit', 'convit_tiny', PATCHES),
    Family('convmixer', 'convmixer_768_32', LINEAR),
    Family('convnext', 'convnext_tiny', NORMALISED),
    Family('convnext', 'convnextv2_tiny', NORMALISED),
    Family('convnext', 'convnext_tiny_hnf', LINEAR),
    Family('cpubone', 'cpubone_nano', HIDDEN),
    Family('crossvit', 'crossvit_tiny_240', REFUSED, ONE_MAP),
    Family('csatv2', 'csatv2', NORMALISED),
    Family('cspnet', 'cs3darknet_focus_s', LINEAR),
    Family('cspnext', 'cspnext_tiny', LINEAR),
    Family('davit', 'davit_tiny', NORMALISED),
    Family('deepseek_vit', 'deepseek_vit_412m', NORMALISED),
    Family('deepseek_vit', 'deepseek_vit_412m_enc', REFUSED, NO_CLASSES),
    Family('deit', 'deit3_small_patch16_224', PATCHES),
    Family('deit', 'deit_tiny_distilled_patch16_224', PATCHES),
    Family('densenet', 'densenet121', LINEAR),
    Family('dla', 'dla46_c', LINEAR),
    Family('dpn', 'dpn48b', LINEAR),
    Family('edgenext', 'edgenext_xx_small', NORMALISED),
    Family('efficientformer', 'efficientformer_l1', LINEAR),
    Family('efficientformer_v2', 'efficientformerv2_s0', LINEAR),
    Family('efficientnet', 'efficientnet_b0', LINEAR),
    Family('efficientvim', 'efficientvim_m1', REFUSED, ONE_MAP),
    Family('efficientvit_mit', 'efficientvit_b0', HIDDEN),
    Family('efficientvit_msra', 'efficientvit_m0', LINEAR),
    Family('eva', 'eva02_tiny_patch14_336', NORMALISED),
    Family('eva', 'vit_tiny_patch16_dinov3_qkvb', LINEAR),
    Family('eva', 'vit_pe_core_tiny_patch16_384', ATTENTION),
    Family('eva', 'vit_small_patch16_rope_224', PATCHES),
    Family('fasternet', 'fasternet_t0', HIDDEN),
    Family('fastvit', 'fastvit_t8', LINEAR),
    Family('focalnet', 'focalnet_tiny_srf', LINEAR),
    Family('gcvit', 'gcvit_xxtiny', LINEAR),
    Family('gemma4_vit', 'gemma4_vit_167m', NORMALISED),
    Family('gemma4_vit', 'gemma4_vit_167m_enc', REFUSED, NO_CLASSES),
    Family('ghostnet', 'ghostnet_050', HIDDEN),
    Family('hardcorenas', 'hardcorenas_a', HIDDEN),
    Family('hgnet', 'hgnetv2_b0', HIDDEN),
    Family('hiera', 'hiera_tiny_224', NORMALISED),
    Family('hieradet_sam2', 'hieradet_small', NORMALISED),
    Family('hrnet', 'hrnet_w18_small', LINEAR),
    Family('iformer', 'iformer_t', LINEAR),
    Family('inception_next', 'inception_next_atto', HIDDEN),
    Family('inception_resnet_v2', 'inception_resnet_v2', REFUSED, NO_PADDING),
    Family('inception_v3', 'inception_v3', REFUSED, NO_PADDING),
    Family('inception_v4', 'inception_v4', REFUSED, NO_PADDING),
    Family('lcnetv2', 'lcnetv2_small', HIDDEN),
    Family('levit', 'levit_128s', LINEAR),
    Family('lowformer', 'lowformer_b0', HIDDEN),
    Family('lvvit', 'lvvit_s', TOKEN_HEAD),
    Family('mambaout', 'mambaout_femto', NORMALISED),
    Family('maxxvit', 'maxvit_tiny_tf_224', NORMALISED),
    Family('maxxvit', 'maxvit_rmlp_pico_rw_256', LINEAR),
    Family('metaformer', 'poolformerv2_s12', NORMALISED),
    Family('mlp_mixer', 'mixer_s16_224', LINEAR),
    Family('mobilenetv3', 'mobilenetv3_small_050', HIDDEN),
    Family('mobilenetv5', 'mobilenetv5_base', LINEAR),
    Family('mobilenetv5', 'mobilenetv5_300m_enc', REFUSED, NO_CLASSES),
    Family('mobilevit', 'mobilevit_xxs', LINEAR),
    Family('mvitv2', 'mvitv2_tiny', LINEAR),
    Family('mvitv2', 'mvitv2_small_cls', PATCHES),
    Family('naflexvit', 'naflexvit_base_patch16_gap', NORMALISED),
    Family('naflexvit', 'naflexvit_base_patch16_map', ATTENTION),
    Family('nasnet', 'nasnetalarge', LINEAR),
    Family('nest', 'nest_tiny', LINEAR),
    Family('nextvit', 'nextvit_small', LINEAR),
    Family('nfnet', 'dm_nfnet_f6', LINEAR),
    Family('pit', 'pit_ti_224', REFUSED, 'its features are the class token alone'),
    Family('pnasnet', 'pnasnet5large', LINEAR),
    Family('pvt_v2', 'pvt_v2_b0', LINEAR),
    Family('qwen3_vit', 'qwen3_vit_88m', NORMALISED),
    Family('qwen3_vit', 'qwen3_vit_88m_enc', REFUSED, NO_CLASSES),
    Family('rdnet', 'rdnet_tiny', NORMALISED),
    Family('regnet', 'regnety_002', LINEAR),
    Family('repghost', 'repghostnet_050', HIDDEN),
    Family('repvit', 'repvit_m1', LINEAR),
    Family('res2net', 'res2next50', LINEAR),
    Family('resnest', 'resnest14d', LINEAR),
    Family('resnet', 'resnet18', LINEAR),
    Family('resnetv2', 'resnetv2_18', LINEAR),
    Family('rexnet', 'rexnet_100', LINEAR),
    Family('selecsls', 'selecsls42', LINEAR),
    Family('senet', 'legacy_seresnet18', LINEAR),
    Family('sequencer', 'sequencer2d_s', LINEAR),
    Family('shvit', 'shvit_s1', LINEAR),
    Family('sknet', 'skresnet18', LINEAR),
    Family('starnet', 'starnet_s1', LINEAR),
    Family('swiftformer', 'swiftformer_xs', LINEAR),
    Family('swin_transformer', 'swin_tiny_patch4_window7_224', LINEAR),
    Family('swin_transformer_v2', 'swinv2_tiny_window8_256', LINEAR),
    Family('swin_transformer_v2_cr', 'swinv2_cr_tiny_224', LINEAR),
    Family('tiny_vit', 'tiny_vit_5m_224', NORMALISED),
    Family('tnt', 'tnt_s_patch16_224', PATCHES),
    Family('tresnet', 'tresnet_m', LINEAR),
    Family('twins', 'twins_svt_small', LINEAR),
    Family('vgg', 'vgg11', REFUSED, 'its head tells locations apart'),
    Family('visformer', 'visformer_tiny', LINEAR),
    Family('vision_transformer', 'vit_tiny_patch16_224', PATCHES),
    Family('vision_transformer', 'vit_little_patch16_reg4_gap_256', NORMALISED),
    Family('vision_transformer', 'vit_medium_patch16_gap_256', LINEAR),
    Family('vision_transformer', 'vit_so150m_patch16_reg4_map_256', ATTENTION),
    Family('vision_transformer_hybrid', 'vit_tiny_r_s16_p8_224', PATCHES),
    Family('vision_transformer_relpos', 'vit_relpos_small_patch16_224', NORMALISED),
    Family('vision_transformer_relpos', 'vit_srelpos_small_patch16_224', LINEAR),
    Family('vision_transformer_relpos', 'vit_relpos_medium_patch16_cls_224', PATCHES),
    Family('vision_transformer_sam', 'samvit_base_patch16_224', LINEAR),
    Family('vitamin', 'vitamin_small_224', NORMALISED),
    Family('volo', 'volo_d1_224', TOKEN_HEAD),
    Family('vovnet', 'ese_vovnet19b_dw', LINEAR),
    Family('xception', 'legacy_xception', LINEAR),
    Family('xception_aligned', 'xception41p', LINEAR),
    Family('xcit', 'xcit_nano_12_p8_224', PATCHES),
)


def describe_families() -> str:
    """The table as text: what the ways mean, then a line per family."""
    meanings = [f'  {way:<{_width(MEANINGS)}}  {meaning}' for way, meaning in MEANINGS.items()]
    header = Family('family', 'example', 'maps')
    widths = [_width(column) for column in list(zip(header, *FAMILIES, strict=True))[:2]]
    lines = []
    for family in (header, *FAMILIES):
        maps = f'{family.maps}: {family.reason}' if family.reason else family.maps
        lines.append(f'  {family.module:<{widths[0]}}  {family.example:<{widths[1]}}  {maps}')
    return '\n'.join(["How the scores of a location arise in timm's classifiers", '', *meanings, '', *lines])


def _width(texts: Iterable[str]) -> int:
    return max(len(text) for text in texts)
