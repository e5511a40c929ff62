"""Per-class scores from a confusion matrix."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class, in percent; NaN instead of a division by zero.

    Attributes:
        name: Name of the class.
        IoU: Intersection over union of prediction and ground truth. For a class that is not in the data, it is 0 if the
            class was predicted, else NaN and left out of means.
        accuracy: Share of the class's pixels that are predicted correctly (recall).
        precision: Share of the pixels predicted as the class that are correct.
        share: The class's share of all labelled pixels.
        pixels: Number of labelled pixels of the class.
        predicted: Number of labelled pixels predicted as the class.
        confused_with: The class most often predicted instead; None if all pixels are correct or there are none.
        confused_share: Share of the class's pixels predicted as `confused_with`.
    """

    name: str
    IoU: float
    accuracy: float
    precision: float
    share: float
    pixels: int
    predicted: int
    confused_with: str | None
    confused_share: float

    @property
    def is_in_data(self) -> bool:
        """Whether the ground truth has pixels of the class."""
        return self.pixels > 0


def class_scores(confusion: Tensor, names: Sequence[str]) -> list[ClassScores]:
    """Scores of all classes, in their order.

    Args:
        confusion: Pixel counts [C, C], int64: rows are the ground truth, columns the prediction.
        names: Names of the C classes.
    """
    counts = confusion.double()
    found, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    shares = {
        'IoU': found / (labelled + predicted - found),
        'accuracy': found / labelled,
        'precision': found / predicted,
        'share': labelled / counts.sum(),
    }
    columns = {key: (100 * values).tolist() for key, values in shares.items()}
    mistaken, for_what = (counts - counts.diagonal().diag()).max(1)
    mistaken_shares = (100 * mistaken / labelled).tolist()
    return [
        ClassScores(
            name=name,
            **{key: values[i] for key, values in columns.items()},
            pixels=int(labelled[i]),
            predicted=int(predicted[i]),
            confused_with=names[for_what[i]] if mistaken[i] else None,
            confused_share=mistaken_shares[i],
        )
        for i, name in enumerate(names)
    ]


def weakest_first(scores: Iterable[ClassScores]) -> list[ClassScores]:
    """Sorted by ascending IoU; classes that are not in the data come last, and among them predicted ones first."""
    return sorted(scores, key=lambda one: (not one.is_in_data, -one.predicted if not one.is_in_data else one.IoU))


def normalised(confusion: Tensor) -> Tensor:
    """Row-normalised confusion matrix, float64 [C, C] in [0, 1]; rows without pixels are NaN."""
    return confusion.double() / confusion.sum(1, keepdim=True)
