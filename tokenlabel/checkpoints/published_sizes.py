"""Sizes of the published LV-ViT models, to build them by name and to recognise their weights."""

# Sizes of the published models; everything else is LVViT's default.
PUBLISHED_SIZES = {
    'lvvit_t': {'embed_dim': 240, 'depth': 12, 'num_heads': 4},
    'lvvit_s': {'embed_dim': 384, 'depth': 16, 'num_heads': 6, 'residual_divisor': 2.0},
    'lvvit_m': {'embed_dim': 512, 'depth': 20, 'num_heads': 8, 'residual_divisor': 2.0},
    'lvvit_l': {'embed_dim': 768, 'depth': 24, 'num_heads': 12, 'stem_width': 128, 'residual_divisor': 3.0},
}
