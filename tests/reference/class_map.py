"""A class map applied cell by cell, class by class."""

import math

import numpy as np


def dense_mapped(scores: np.ndarray, classes: np.ndarray, table: np.ndarray, num_classes: int) -> np.ndarray:
    """Score of every image class in every cell, float64 [C, S, S]; 0 where the cell lists no class of it."""
    k, height, width = scores.shape
    dense = np.zeros((num_classes, height, width))
    for row in range(height):
        for col in range(width):
            for image_class in range(num_classes):
                listed = [
                    float(scores[entry, row, col])
                    for entry in range(k)
                    if table[classes[entry, row, col]] == image_class
                ]
                if listed:
                    dense[image_class, row, col] = math.log(sum(math.exp(score) for score in listed))
    return dense
