"""Pixels counted one by one."""

from torch import Tensor


def confusion_matrix(
    labels: list[Tensor], truths: list[Tensor], num_classes: int, ignore_index: int
) -> list[list[int]]:
    """Rows are the annotated classes, columns the predicted ones."""
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for predicted, annotated in zip(labels, truths, strict=True):
        for column, row in zip(predicted.flatten().tolist(), annotated.flatten().tolist(), strict=True):
            if row != ignore_index and row < num_classes:
                matrix[row][column] += 1
    return matrix
