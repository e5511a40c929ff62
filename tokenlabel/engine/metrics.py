"""Classification accuracy."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class TopK(BaseMetric):
    """Share of images, in percent, whose label is among the k highest scores: `top1`, `top5`, ...

    Padding that the sampler adds to even out the processes is cut off before counting.

    Args:
        topk: the values of k; one above the number of classes counts every image as right.
    """

    def __init__(self, topk: Sequence[int] = (1, 5), collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Takes `scores` [B, C] and `labels` [B]; keeps one row of hits per image."""
        for sample in data_samples:
            num_classes = sample['scores'].shape[1]
            ranked = sample['scores'].topk(min(max(self.topk), num_classes), dim=1).indices
            found = ranked == sample['labels'][:, None]
            hits = torch.stack([found[:, :k].any(1) for k in self.topk], dim=1)
            self.results.extend(hits.tolist())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Percentages over all images."""
        hits = torch.as_tensor(results, dtype=torch.float64).reshape(-1, len(self.topk))
        return {f'top{k}': 100 * float(share) for k, share in zip(self.topk, hits.mean(0), strict=True)}
