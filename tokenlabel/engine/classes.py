"""Whether model, targets, training images and validation images speak of the same classes."""

import torch
from mmengine.model import is_model_wrapper
from torch.utils.data import Dataset

from tokenlabel.data.images import LabeledImages
from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.engine.token_targets import AnnotatorTokenLabels
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import class_names


def check_training_classes(model: torch.nn.Module, dataset: Dataset) -> None:
    """Compare the classes of network, targets and training images; tell the model their names.

    Raises:
        UserError: they do not fit together, or the targets need maps, scores or labels that are not there.
    """
    classifier = model.module if is_model_wrapper(model) else model
    if not isinstance(classifier, TokenLabelClassifier) or not isinstance(dataset, LabeledImages):
        return
    targets = classifier.targets
    kind = type(targets).__name__
    if isinstance(targets, AnnotatorTokenLabels):
        names = class_names(dataset.reader, targets.num_classes, targets.annotator.class_names)
        dataset.number_labels_as(names, targets.num_classes, 'the annotator')
        _check_count(classifier, targets.num_classes, f'The annotator {targets.arguments["name"]} has')
    elif targets.needs_label_maps:
        _check_maps(classifier, dataset)
    else:
        _check_folders(classifier, dataset)
    if dataset.unlabelled and (targets.needs_image_labels or classifier.loss_function.ground_truth):
        what = f'Targets of type {kind}' if targets.needs_image_labels else 'A loss with ground_truth=True'
        raise UserError(
            f'{what} cannot be had from {dataset.root}, as {dataset.unlabelled}: sort the images into class folders, '
            'or train with token labels alone (model.targets.type=TokenLabels model.loss.ground_truth=False).'
        )
    classifier.class_names = dataset.class_names or None


def number_evaluation_labels(model: torch.nn.Module, dataset: Dataset) -> None:
    """Number the labels of images to evaluate on as the model numbers its classes.

    Raises:
        UserError: neither names nor counts tell how, so that no accuracy can be measured.
    """
    classifier = model.module if is_model_wrapper(model) else model
    if not isinstance(classifier, TokenLabelClassifier) or not isinstance(dataset, LabeledImages):
        return
    dataset.number_labels_as(classifier.class_names, classifier.num_classes, 'the model')
    if dataset.unlabelled:
        raise UserError(
            f'Top-1 cannot be measured on {dataset.root}, as {dataset.unlabelled}: give images in folders of the '
            "model's classes, or train without validation (--cfg-options val_cfg=None val_dataloader=None "
            'val_evaluator=None).'
        )


def _check_folders(classifier: TokenLabelClassifier, dataset: LabeledImages) -> None:
    """The network's classes are those of the images; only where these are bare numbers may some be missing."""
    count, own = dataset.num_classes, classifier.num_classes
    if own < count or (dataset.class_names and own != count):
        raise UserError(
            f'{dataset.root} has {count} classes but the network {"only" if own < count else "has"} {own}: '
            f'set model.network.num_classes={count}.'
        )


def _check_maps(classifier: TokenLabelClassifier, dataset: LabeledImages) -> None:
    targets, store = classifier.targets, dataset.labels
    kind = type(targets).__name__
    if store is None:
        raise UserError(
            f'Targets of type {kind} need a label store: set train_dataloader.dataset.label_store, or train with '
            'image labels (model.targets.type=ImageLabels).'
        )
    if dataset.class_map is not None:
        _check_count(classifier, dataset.num_classes, f'The class map {dataset.class_map} leads to')
    else:
        _check_count(classifier, store.num_classes, f'Label store {store.path} has')
    if targets.k is not None and targets.k > store.k:
        raise UserError(
            f'Targets of type {kind} want {targets.k} scores per location, but label store {store.path} keeps '
            f'{store.k}: lower model.targets.k, or annotate with a larger --k.'
        )


def _check_count(classifier: TokenLabelClassifier, count: int, whose: str) -> None:
    if count != classifier.num_classes:
        raise UserError(
            f'{whose} {count} classes but the network has {classifier.num_classes}: its class head and token head '
            f"learn these, so set model.network.num_classes={count}; to train on fewer, say which of the annotator's "
            'classes count as which of the images with train_dataloader.dataset.class_map and a label store.'
        )
