"""What MMSegmentation sees of the project, by registry name.

A config that lists `custom_imports = dict(imports=['mmseg_ext'], allow_failed_imports=False)` can use the backbones
`LVViT` and `TimmTokens`, the necks `TokenPyramid` and `TokenPyramidFPN`, the optimiser constructor `TimmLayerDecay`,
the data set `DigitScenes` and the hook `ReleasedNamesHook`.
"""

from mmseg_ext.quiet_import import import_quietly

import_quietly('mmseg.models', 'mmseg.datasets')

from mmseg_ext import backbones as backbones  # noqa: E402
from mmseg_ext import checkpoint as checkpoint  # noqa: E402
from mmseg_ext import datasets as datasets  # noqa: E402
from mmseg_ext import layer_decay as layer_decay  # noqa: E402
from mmseg_ext import necks as necks  # noqa: E402
