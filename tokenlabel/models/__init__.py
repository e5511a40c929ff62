"""Vision transformers with a token head."""

from tokenlabel.checkpoints.weights import load_checkpoint, read_checkpoint, state_dict_of
from tokenlabel.models.lvvit import LVViT, lvvit_l, lvvit_m, lvvit_s, lvvit_t
from tokenlabel.models.mlp_mixer import mlp_mixer
from tokenlabel.models.token_label_model import TokenLabelModel
from tokenlabel.models.token_logits import TokenLogits, class_scores

__all__ = [
    'LVViT',
    'TokenLabelModel',
    'TokenLogits',
    'class_scores',
    'load_checkpoint',
    'lvvit_l',
    'lvvit_m',
    'lvvit_s',
    'lvvit_t',
    'mlp_mixer',
    'read_checkpoint',
    'state_dict_of',
]
