"""Token labeling: pretrain vision transformers with one soft label per patch token.

Importing the package registers `lvvit_t`, `lvvit_s`, `lvvit_m`, `lvvit_l` and `mlp_mixer` with timm.
"""

import importlib
import sys
from pathlib import Path

__version__ = '0.1.0'

# `tokenlabel` and `python -m tokenlabel` import them with the command that they run: --help does not wait for torch.
if Path(*sys.argv[:1]).name not in ('tokenlabel', '-m'):
    importlib.import_module('tokenlabel.models')
