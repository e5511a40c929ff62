"""What MMSegmentation sees of the project, by registry name.

A config that lists `custom_imports = dict(imports=['mmseg_ext'], allow_failed_imports=False)` can use the backbone
from mmseg_ext import segmentors as segmentors  # noqa: E402
from mmseg_ext.segmenter import Segmenter as Segmenter  # noqa: E402
