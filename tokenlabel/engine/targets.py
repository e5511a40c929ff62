"""What a batch is trained towards: one registered class per kind of target.

Each is called with a batch on the training device, the token grid and the number of classes, and gives `TokenTargets`.
`trains_tokens` says whether its targets reach the token head, `needs_label_maps` whether it reads score maps.
"""

from mmengine.registry import TASK_UTILS
from torch import Tensor

from tokenlabel.labels.targets import TokenTargets, distillation_targets, image_targets, token_targets


@TASK_UTILS.register_module()
class TokenLabels:
    """Token labeling: the annotator's scores at every token, and over the whole crop for the class token.

    Args:
        smoothing: label smoothing in [0, 1).
        geometry: 'exact', or 'released' to repeat how the release of 2021 reads its maps (axes exchanged).
    """

    trains_tokens = True
    needs_label_maps = True

    def __init__(self, smoothing: float = 0.0, geometry: str = 'exact') -> None:
        self.smoothing = smoothing
        self.geometry = geometry

    def __call__(self, batch: dict[str, Tensor], grid: tuple[int, int], num_classes: int) -> TokenTargets:
        return token_targets(
            batch['scores'],
            batch['classes'],
            batch['view'],
            grid,
            num_classes,
            smoothing=self.smoothing,
            map_view=batch['map_view'],
            geometry=self.geometry,
        )


@TASK_UTILS.register_module()
class ImageLabels:
    """The image's label: on the class token alone, or copied to every token.

    Args:
        smoothing: label smoothing in [0, 1).
        on_tokens: copy the label to every token, as the release does where it has no label maps.
    """

    needs_label_maps = False

    def __init__(self, smoothing: float = 0.0, on_tokens: bool = False) -> None:
        self.smoothing = smoothing
        self.trains_tokens = on_tokens

    def __call__(self, batch: dict[str, Tensor], grid: tuple[int, int], num_classes: int) -> TokenTargets:
        return image_targets(
            batch['label'], grid if self.trains_tokens else None, num_classes, smoothing=self.smoothing
        )


@TASK_UTILS.register_module()
class AnnotatorImageLabels:
    """Plain distillation: the annotator's soft label of the whole image, on the class token alone.

    Args:
        smoothing: label smoothing in [0, 1).
    """

    trains_tokens = False
    needs_label_maps = True

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def __call__(self, batch: dict[str, Tensor], grid: tuple[int, int], num_classes: int) -> TokenTargets:
        return distillation_targets(batch['scores'], batch['classes'], num_classes, smoothing=self.smoothing)
