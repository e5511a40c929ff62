"""Registers the project's MMSegmentation modules.

A config that lists `custom_imports = dict(imports=['mmseg_ext'], allow_failed_imports=False)` can use the backbones
`LVViT` and `TimmTokens`, the necks `TokenPyramid` and `TokenPyramidFPN`, the segmentor `BatchedEncoderDecoder` and
`BatchedTTAModel` around it, the metric `StreamingIoU`, the optimiser constructor `TimmLayerDecay`, the data sets
`ImageMaskFolders` and `DigitScenes`, the transforms `LoadImageFromFile` (in the place of MMCV's),
`LoadImageFromNDArray`, `LoadLabelMap` and `RandomIntensity`, and the hook `ReleasedNamesHook`. MMSegmentation's
`SegDataPreProcessor`, `CrossEntropyLoss`, `IoUMetric`, `SegVisualizationHook` and `LocalVisBackend` are replaced by
fixed versions of the same name.
In Python, `Segmenter(config, checkpoint)(image)` segments images of any kind.
"""

import contextlib
import io
import warnings

from mmseg_ext.compiled_operators import import_without_operators

# MMSegmentation prints, and MMCV warns, about missing optional modules that this package does not use.
with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    import_without_operators('mmseg.models')
    import_without_operators('mmseg.datasets')

from mmseg_ext import backbones as backbones
from mmseg_ext import checkpoints as checkpoints
from mmseg_ext import datasets as datasets
from mmseg_ext import evaluation as evaluation
from mmseg_ext import losses as losses
from mmseg_ext import necks as necks
from mmseg_ext import optim as optim
from mmseg_ext import segmentors as segmentors
from mmseg_ext.inference import Segmenter as Segmenter
