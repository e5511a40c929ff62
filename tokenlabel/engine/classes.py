"""Matches the classes of the model, its targets and every dataset."""

from typing import NamedTuple

import torch
from mmengine.model import is_model_wrapper
from torch.utils.data import Dataset

from tokenlabel.data.images import LabeledImages, Numbering
from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.engine.token_targets import AnnotatorTokenLabels
from tokenlabel.errors import UserError
from tokenlabel.labels.annotator import class_names


class ClassPlan(NamedTuple):
    """Result of `resolve_classes`; `apply` writes it to the model and the datasets.

    Attributes:
        classifier: the model; None where there is nothing to resolve.
        class_names: names of the model's classes in order; None if unknown.
        numberings: datasets and the new numbering of their labels.
    """

    classifier: TokenLabelClassifier | None
    class_names: list[str] | None
    numberings: list[tuple[LabeledImages, Numbering]]

    def apply(self) -> None:
        """Sets the model's class names and renumbers the labels of the datasets."""
        if self.classifier is not None:
            self.classifier.class_names = self.class_names
        for dataset, numbering in self.numberings:
            dataset.renumber(numbering)


def resolve_classes(
    model: torch.nn.Module, training: Dataset | None = None, evaluation: Dataset | None = None
) -> ClassPlan:
    """Compares the classes of network, targets, label store and images.

    Class names come from the training images or their label store, else from the model's checkpoint. The labels of
    the evaluation images are numbered by them. Models and datasets of other types stay unchanged.

    Args:
        model: the classifier, wrapped for several processes or not.
        training: dataset to train on, joined to its label store.
        evaluation: dataset to validate or test on.

    Raises:
        UserError: the classes do not match; the targets need score maps, scores or labels that do not exist; or the
            classes of the evaluation images match the model's neither by name nor by count.
    """
    classifier = model.module if is_model_wrapper(model) else model
    if not isinstance(classifier, TokenLabelClassifier):
        return ClassPlan(None, None, [])
    names, numberings = classifier.class_names, []
    if isinstance(training, LabeledImages):
        numbering = _training_numbering(classifier, training)
        numberings.append((training, numbering))
        names = numbering.class_names or names
    if isinstance(evaluation, LabeledImages):
        numbering = evaluation.numbered_as(names, classifier.num_classes, 'the model')
        if numbering.unlabelled:
            raise UserError(
                f'Top-1 cannot be measured on {evaluation.root}, as {numbering.unlabelled}: give images in folders of '
                "the model's classes, or train without validation (--cfg-options val_cfg=None val_dataloader=None "
                'val_evaluator=None).'
            )
        numberings.append((evaluation, numbering))
    return ClassPlan(classifier, names, numberings)


def _training_numbering(classifier: TokenLabelClassifier, dataset: LabeledImages) -> Numbering:
    targets = classifier.targets
    numbering = dataset.numbering
    if isinstance(targets, AnnotatorTokenLabels):
        names = class_names(dataset.reader, targets.num_classes, targets.annotator.class_names)
        numbering = dataset.numbered_as(names, targets.num_classes, 'the annotator')
        _check_count(classifier, targets.num_classes, f'The annotator {targets.arguments["name"]} has')
    elif targets.needs_label_maps:
        _check_maps(classifier, dataset)
    else:
        _check_folders(classifier, dataset)
    if numbering.unlabelled and (targets.needs_image_labels or classifier.loss_function.ground_truth):
        kind = type(targets).__name__
        what = f'Targets of type {kind}' if targets.needs_image_labels else 'A loss with ground_truth=True'
        raise UserError(
            f'{what} cannot be made from {dataset.root}, as {numbering.unlabelled}: sort the images into class '
            'folders, or train with token labels alone (model.targets.type=TokenLabels model.loss.ground_truth=False).'
        )
    return numbering


def _check_folders(classifier: TokenLabelClassifier, dataset: LabeledImages) -> None:
    """Checks that the network has as many classes as the images, or more if the images' classes have no names."""
    count, network_count = dataset.num_classes, classifier.num_classes
    if network_count < count or (dataset.class_names and network_count != count):
        raise UserError(
            f'{dataset.root} has {count} classes but the network has {network_count}: '
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
        _check_count(classifier, dataset.num_classes, f'The class map {dataset.class_map} maps to')
    else:
        _check_count(classifier, store.num_classes, f'Label store {store.path} has')
    if targets.k is not None and targets.k > store.k:
        raise UserError(
            f'Targets of type {kind} need {targets.k} scores per location, but label store {store.path} keeps '
            f'{store.k}: lower model.targets.k, or annotate with a larger --k.'
        )


def _check_count(classifier: TokenLabelClassifier, count: int, subject: str) -> None:
    if count != classifier.num_classes:
        raise UserError(
            f'{subject} {count} classes but the network has {classifier.num_classes}: set '
            f"model.network.num_classes={count}, or map the annotator's classes to fewer with a label store and "
            'train_dataloader.dataset.class_map.'
        )
