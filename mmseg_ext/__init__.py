"""What MMSegmentation sees of the project, by registry name.

A config that lists `custom_imports = dict(imports=['mmseg_ext'], allow_failed_imports=False)` can use the backbones
`LVViT` and `TimmTokens`, the necks `TokenPyramid` and `TokenPyramidFPN`, the segmentor `BatchedEncoderDecoder` and
`BatchedTTAModel` around it, the metric `StreamingIoU`, the optimiser constructor `TimmLayerDecay`, the data sets
`ImageMaskFolders` and `DigitScenes`, the transforms `LoadImageFromFile` (in the place of MMCV's),
`LoadImageFromNDArray` and `LoadLabelMap`, and the hook `ReleasedNamesHook`. MMSegmentation's `CrossEntropyLoss`,
`IoUMetric`, `SegVisualizationHook` and `LocalVisBackend` are mended under their own names.
In Python, `Segmenter(config, checkpoint)(image)` segments images of any kind.
"""

from mmseg_ext.quiet_import import import_quietly

import_quietly('mmseg.models', 'mmseg.datasets')

from mmseg_ext import backbones as backbones  # noqa: E402
from mmseg_ext import checkpoints as checkpoints  # noqa: E402
from mmseg_ext import datasets as datasets  # noqa: E402
from mmseg_ext import evaluation as evaluation  # noqa: E402
from mmseg_ext import losses as losses  # noqa: E402
from mmseg_ext import necks as necks  # noqa: E402
from mmseg_ext import optim as optim  # noqa: E402
from mmseg_ext import segmentors as segmentors  # noqa: E402
from mmseg_ext.inference import Segmenter as Segmenter  # noqa: E402
