"""`pretrain.py` with one soft label for the whole image, averaged over the annotator's score map: distillation.

tools/pretrain.sh configs/imagenette/distillation.py 1
"""

_base_ = ['pretrain.py']

model = dict(targets=dict(type='AnnotatorImageLabels'))
