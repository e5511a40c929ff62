"""MLP-Mixer of any size, registered with timm as `mlp_mixer`: timm's own entry points fix width, depth and patch."""

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.mlp_mixer import MlpMixer

__all__ = []  # timm adds the entry point

default_cfgs = generate_default_cfgs(
    {'mlp_mixer.untrained': {'num_classes': 1000, 'first_conv': 'stem.proj', 'classifier': 'head'}}
)


@register_model
def mlp_mixer(pretrained: bool = False, **kwargs) -> MlpMixer:
    """MLP-Mixer, by default 224 x 224, patch 16, 8 blocks of width 512; it has no pretrained weights."""
    return build_model_with_cfg(MlpMixer, 'mlp_mixer', pretrained, feature_cfg={'flatten_sequential': True}, **kwargs)
