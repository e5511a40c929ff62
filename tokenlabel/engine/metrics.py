"""Classification accuracy."""

from collections.abc import Sequence
from typing import Literal

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from tokenlabel.argument_checks import Count, checked
from tokenlabel.errors import UserError

NON_FINITE = (
    'The {} of {} of {} images are NaN or infinite: the checkpoint is damaged or its training diverged; use another '
    'checkpoint.'
)


@METRICS.register_module()
class TopK(BaseMetric):
    """Share of images, in percent, whose label is among the k highest scores: `top1`, `top5`, ...

    Samples that the sampler repeats to give every rank the same number are not counted.

    Args:
        topk: the values of k; a k above the number of classes counts every image as correct.

    Raises:
        UserError: scores are NaN or infinite.
    """

    @checked
    def __init__(
        self, topk: Sequence[Count] = (1, 5), collect_device: Literal['cpu', 'gpu'] = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Takes `scores` [B, C] and `labels` [B]; keeps one row of hits per image."""
        for sample in data_samples:
            num_classes = sample['scores'].shape[1]
            ranked = sample['scores'].topk(min(max(self.topk), num_classes), dim=1).indices
            found = ranked == sample['labels'][:, None]
            hits = [found[:, :k].any(1) for k in self.topk]
            self.results.extend(torch.stack([*hits, sample['scores'].isfinite().all(1)], dim=1).tolist())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Percentages over all images."""
        *shares, finite = torch.as_tensor(results, dtype=torch.float64).reshape(-1, len(self.topk) + 1).mean(0)
        if finite < 1:
            raise UserError(
                NON_FINITE.format('scores', len(results) - round(float(finite) * len(results)), len(results))
            )
        return {f'top{k}': 100 * float(share) for k, share in zip(self.topk, shares, strict=True)}


class ReassessedTopK(BaseMetric):
    """ImageNet-ReaL: share of images, in percent, with one of their correct classes among the k highest scores.

    An image may have several correct classes (Beyer et al. 2020, "Are we done with ImageNet?"); images with none do
    not count.

    Args:
        right_classes: correct classes of each image of the dataset, by index.
        topk: the values of k.
    """

    default_prefix = 'real'

    def __init__(
        self, right_classes: Sequence[Sequence[int]], topk: Sequence[int] = (1,), collect_device: str = 'cpu'
    ) -> None:
        super().__init__(collect_device=collect_device)
        self.right_classes = right_classes
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Takes `index` [B] of the batch and `scores` [B, C]; keeps hits per image, -1 where no class is right."""
        ranked = torch.cat([sample['scores'].topk(max(self.topk), dim=1).indices for sample in data_samples])
        for index, classes in zip(data_batch['index'].tolist(), ranked.tolist(), strict=True):
            right = set(self.right_classes[index])
            self.results.append([not right.isdisjoint(classes[:k]) if right else -1 for k in self.topk])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Percentages over the images that have a right class."""
        hits = torch.as_tensor([hits for hits in results if hits[0] >= 0], dtype=torch.float64)
        shares = hits.reshape(-1, len(self.topk)).mean(0)
        return {f'top{k}': 100 * float(share) for k, share in zip(self.topk, shares, strict=True)}
