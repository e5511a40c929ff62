"""MMSegmentation's cross entropy, with fixes for settings in which it fails."""

from mmseg.models.losses import cross_entropy_loss
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module(force=True)
class CrossEntropyLoss(cross_entropy_loss.CrossEntropyLoss):
    """MMSegmentation's CrossEntropyLoss, registered under the same name, with the same values where that one works.

    The original fails with `class_weight` and `avg_non_ignore=True`, which its own warning suggests; with
    `class_weight` for a sigmoid over several classes; and if a single output's whole batch is ignored.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.cls_criterion is cross_entropy_loss.cross_entropy:
            self.cls_criterion = softmax_cross_entropy
        elif self.cls_criterion is cross_entropy_loss.binary_cross_entropy:
            self.cls_criterion = sigmoid_cross_entropy


def softmax_cross_entropy(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    avg_non_ignore: bool = False,
    ignore_index: int = -100,
    avg_factor: Tensor | float | None = None,
    **kwargs,
) -> Tensor:
    """MMSegmentation's `cross_entropy` of logits [N, C, H, W].

    With class weights, the mean is weighted over the labels that are not ignored, for either `avg_non_ignore`.
    """
    if class_weight is not None and avg_factor is None and kwargs.get('reduction', 'mean') == 'mean':
        # the original distribution also looks up the weight of the ignored label
        is_learned = label != ignore_index
        avg_factor = (class_weight[label.where(is_learned, 0)] * is_learned).sum()
    return cross_entropy_loss.cross_entropy(
        pred,
        label,
        weight,
        class_weight=class_weight,
        avg_non_ignore=avg_non_ignore,
        ignore_index=ignore_index,
        avg_factor=avg_factor,
        **kwargs,
    )


def sigmoid_cross_entropy(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int | None = -100,
    **kwargs,
) -> Tensor:
    """MMSegmentation's `binary_cross_entropy` of logits [N, C, H, W]; `class_weight` [C] multiplies positive labels."""
    if pred.size(1) == 1 and (label == ignore_index).all():
        return 0 * pred.sum()
    if class_weight is not None and pred.size(1) > 1:
        class_weight = class_weight.view(-1, *[1] * (pred.dim() - 2))
    return cross_entropy_loss.binary_cross_entropy(
        pred, label, weight, class_weight=class_weight, ignore_index=ignore_index, **kwargs
    )
