"""IoU, Dice and F-score from one confusion matrix, accumulated on the device of the predictions."""

from collections.abc import Sequence

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from mmseg_ext.evaluation.prediction_files import WritesPredictions
from tokenlabel.engine.metrics import NON_FINITE
from tokenlabel.errors import UserError


@METRICS.register_module()
class StreamingIoU(WritesPredictions, IoUMetric):
    """MMSegmentation's IoUMetric, with the same results from a streaming confusion matrix.

    The host does not wait for the device before `evaluate`, which sums the matrices of all ranks once. Images that a
    sampler repeats to fill up the last batch of ranks count once: a rank that got an image beyond the end of the data
    set drops it (MMEngine's samplers distribute images in turn and repeat only at the end).

    Attributes:
        confusion: Confusion matrix of the last `evaluate`, int64 [C, C]: rows are the ground truth, columns the
            prediction. Pixels whose label is not a class are not counted.
        images: With `per_image`, results of the last `evaluate`, one dict per image in the dataset's order: `img_path`,
            `pixels` (number of labelled ones), `correct` (number of these), `IoU` (mean over the classes in its
            annotation, in [0, 1]; NaN without any).

    Args:
        ignore_index: Label of ignored pixels.
        iou_metrics: One or several of 'mIoU', 'mDice' and 'mFscore'.
        nan_to_num: Score of a class that does not occur; None leaves such classes out of the means.
        beta: Weight of recall in the F-score.
        prefix: Prefix of the metrics' names.
        output_dir: Folder for predictions as PNG files, numbered as on disk; 8 bits, or 16 for more than 255 classes.
            After `name_images_of`, which our Runner calls, files keep the path of their image below the image folder;
            otherwise its file name.
        format_only: Write predictions only.
        per_image: Keep `images`.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        iou_metrics: Sequence[str] | str = ('mIoU',),
        nan_to_num: int | None = None,
        beta: int = 1,
        collect_device: str = 'cpu',
        output_dir: str | None = None,
        format_only: bool = False,
        prefix: str | None = None,
        per_image: bool = False,
        **kwargs,
    ) -> None:
        metrics = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        super().__init__(
            ignore_index, metrics, nan_to_num, beta, collect_device, output_dir, format_only, prefix, **kwargs
        )
        self.per_image = per_image
        self.confusion: Tensor | None = None
        self.images: list[dict] = []
        self._forget()

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Counts the pixels of a batch: `pred_sem_seg` against `gt_sem_seg`, both [1, H, W]."""
        for sample in data_samples:
            labels = sample['pred_sem_seg']['data'].squeeze()
            if self.output_dir is not None:
                self.write_labels(labels, sample)
            finite = sample.get('finite_logits')
            if finite is None and 'seg_logits' in sample:
                finite = sample['seg_logits']['data'].isfinite().all()
            if finite is not None:
                self._num_broken = self._num_broken + (~finite).int()
            if not self.format_only:
                truth = sample['gt_sem_seg']['data'].squeeze().to(labels.device)
                self._count(labels, truth, sample.get('img_path'))

    def evaluate(self, size: int) -> dict:
        """The metrics over all processes, in percent.

        Args:
            size: Number of images in the dataset.

        Raises:
            UserError: Logits were NaN or infinite.
        """
        broken = torch.as_tensor(self._num_broken).long().cpu()
        all_reduce(broken)
        if broken:
            raise UserError(NON_FINITE.format('logits', int(broken), size))
        if self.format_only:
            print_log(f'Predictions are in {self.output_dir}.', 'current')
            return {}
        counts = torch.zeros(self._num_bins, dtype=torch.int64) if self._counts is None else self._counts
        num_images = torch.tensor(self._num_images)
        all_reduce(num_images)
        if num_images > size and get_rank() + (self._num_images - 1) * get_world_size() >= size:
            counts = counts - self._last
            self._rows = self._rows[:-1]
        counts = counts.cpu()
        all_reduce(counts)
        side = self._num_classes + 1
        counts = counts.view(side, side)
        self.confusion = counts[:-1, :-1].clone()
        self.images = self._gathered_images() if self.per_image else []
        metrics = [self._metrics(counts) if is_main_process() else None]
        broadcast_object_list(metrics)
        self._forget()
        return metrics[0]

    @property
    def _num_classes(self) -> int:
        return len(self.dataset_meta['classes'])

    @property
    def _num_bins(self) -> int:
        return (self._num_classes + 1) ** 2

    def _forget(self) -> None:
        self._counts = self._last = None
        self._num_images = 0
        self._num_broken = 0
        self._rows = []

    def _count(self, labels: Tensor, truth: Tensor, path: str | None) -> None:
        # labels that are neither a class nor ignored get an extra row and column, as in IoUMetric's areas
        other = self._num_classes
        counted = truth != self.ignore_index
        rows = torch.where((truth >= 0) & (truth < other), truth, other).int()
        columns = torch.where((labels >= 0) & (labels < other), labels, other).int()
        bins = torch.where(counted, rows * (other + 1) + columns, self._num_bins)
        counts = histogram(bins.flatten(), self._num_bins + 1)[:-1]
        self._counts = counts.clone() if self._counts is None else self._counts + counts
        self._last = counts
        self._num_images += 1
        if self.per_image:
            self._rows.append((path, image_scores(counts.view(other + 1, other + 1)[:-1, :-1])))

    def _gathered_images(self) -> list[dict]:
        rows = [
            dict(img_path=path, pixels=int(pixels), correct=int(correct), IoU=iou)
            for path, (pixels, correct, iou) in ((path, scores.tolist()) for path, scores in self._rows)
        ]
        processes = all_gather_object(rows)
        longest = max(map(len, processes))
        return [rows[turn] for turn in range(longest) for rows in processes if turn < len(rows)]

    def _metrics(self, counts: Tensor) -> dict[str, float]:
        intersection = counts.diagonal()[:-1].float()
        predicted, labelled = counts.sum(0)[:-1], counts.sum(1)[:-1]
        union = (predicted + labelled).float() - intersection
        metrics = self.compute_metrics([(intersection, union, predicted.float(), labelled.float())])
        names = self.dataset_meta['classes']
        if absent := [name for name, pixels in zip(names, labelled.tolist(), strict=True) if not pixels]:
            print_log(
                f'{len(absent)} of {len(names)} classes are not in the annotations; the means leave out those that are '
                f'not predicted either: {", ".join(absent)}.',
                MMLogger.get_current_instance(),
            )
        return {f'{self.prefix}/{name}': value for name, value in metrics.items()} if self.prefix else metrics


def histogram(bins: Tensor, num_bins: int) -> Tensor:
    """Counts of the numbers in [0, num_bins) in int32 `bins` [N]: int64 [num_bins]. Does not synchronise a GPU."""
    if bins.is_cuda:  # bincount would synchronise to get the largest number
        return torch.histc(bins, num_bins, min=0, max=num_bins - 1).long()
    return torch.bincount(bins, minlength=num_bins)


def image_scores(confusion: Tensor) -> Tensor:
    """Number of labelled pixels, of correct ones, and mean IoU over the classes in the annotation: float64 [3]."""
    right, labelled = confusion.diagonal(), confusion.sum(1)
    iou = right / (labelled + confusion.sum(0) - right).double()
    mean = torch.where(labelled > 0, iou, torch.nan).nanmean()
    return torch.stack([labelled.sum().double(), right.sum().double(), mean])
