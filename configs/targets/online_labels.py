"""LV-ViT-S on ImageNet-1k with token labels that the annotator makes during training: no label store.

    tools/pretrain.sh configs/targets/online_labels.py 8

In every step the annotator labels the very crops that the student sees, at twice their size: 14 x 14 locations for the
student's 14 x 14 tokens. That is 61 GMACs per image beside some 20 for the student's own step, so a run
takes several times as long as one from a store, which labels each image once. Any name that `tokenlabel annotate` takes
will do.
"""

_base_ = ['../pretrain_lvvit_s.py']

model = dict(
    targets=dict(type='AnnotatorTokenLabels', annotator=dict(name='convnext_base.fb_in22k_ft_in1k', size=448), k=5)
)
train_dataloader = dict(dataset=dict(label_store=None))
