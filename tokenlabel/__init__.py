"""Token labeling: pretrain vision transformers with one soft label per patch token.

Importing the package registers `lvvit_t`, `lvvit_s`, `lvvit_m`, `lvvit_l` and `mlp_mixer` with timm.
"""

from tokenlabel import models as models

__version__ = '0.1.0'
