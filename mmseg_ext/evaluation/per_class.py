"""What a confusion matrix says about each class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClassScores:
    """One class. Scores and shares are in percent; one that would divide by zero is NaN.

    Attributes:
        name: The class.
        IoU: Pixels of the class that were found, of all that are the class or were taken for it. 0 where the class is
            not in the data and was predicted nevertheless; NaN, and left out of means, where it was not.
        accuracy: Share of the class's pixels that were found (recall).
        precision: Share of the pixels taken for the class that are the class.
        share: Share of all labelled pixels that are the class.
        pixels: Labelled pixels of the class.
        predicted: Labelled pixels taken for the class.
        confused_with: What the class is most often taken for; None where it is always found, or not in the data.
        confused_share: Share of the class's pixels taken for that.
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
        """Whether any labelled pixel is of the class."""
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
    """Sorted by IoU, ascending; classes that are not in the data come last, those predicted nevertheless first."""
    return sorted(scores, key=lambda one: (not one.is_in_data, -one.predicted if not one.is_in_data else one.IoU))


def normalised(confusion: Tensor) -> Tensor:
    """Shares [C, C] of each class's pixels by what they were taken for, float64; rows without pixels are NaN."""
    return confusion.double() / confusion.sum(1, keepdim=True)
