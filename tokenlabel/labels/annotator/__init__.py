"""The machine annotator: any classifier of timm, read out at every location, writes score maps into a label store."""

from tokenlabel.labels.annotator.dense_classifier import DenseClassifier
from tokenlabel.labels.annotator.loading import (
    Annotator,
    annotator_view,
    class_names,
    load_annotator,
    map_side,
    read_class_names,
    weights_digest,
)

__all__ = [
    'Annotator',
    'DenseClassifier',
    'annotator_view',
    'class_names',
    'load_annotator',
    'map_side',
    'read_class_names',
    'weights_digest',
]
