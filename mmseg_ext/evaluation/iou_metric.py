"""MMSegmentation's IoUMetric, registered under the same name; prediction files keep the path of their image."""

from collections.abc import Sequence

import mmseg.evaluation
from mmseg.registry import METRICS

from mmseg_ext.evaluation.prediction_files import WritesPredictions


@METRICS.register_module(force=True)
class IoUMetric(WritesPredictions, mmseg.evaluation.IoUMetric):
    """MMSegmentation's `IoUMetric`, but images with the same name in two folders get two files in `output_dir`."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compares `pred_sem_seg` with `gt_sem_seg` of a batch, and writes the predictions if `output_dir` is set."""
        for sample in data_samples:
            labels = sample['pred_sem_seg']['data'].squeeze()
            if not self.format_only:
                truth = sample['gt_sem_seg']['data'].squeeze().to(labels)
                num_classes = len(self.dataset_meta['classes'])
                self.results.append(self.intersect_and_union(labels, truth, num_classes, self.ignore_index))
            if self.output_dir is not None:
                self.write_labels(labels, sample)
