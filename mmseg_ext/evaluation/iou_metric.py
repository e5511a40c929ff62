"""MMSegmentation's IoUMetric under its own name, whose predictions keep the path of their image."""

from collections.abc import Sequence

import mmseg.evaluation
from mmseg.registry import METRICS

from mmseg_ext.evaluation.prediction_files import WritesPredictions


@METRICS.register_module(force=True)
class IoUMetric(WritesPredictions, mmseg.evaluation.IoUMetric):
    """MMSegmentation's `IoUMetric`. Images of one name in two folders have a prediction each in `output_dir`."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compares a batch, `pred_sem_seg` against `gt_sem_seg`, and writes the predictions where that is asked for."""
        for sample in data_samples:
            labels = sample['pred_sem_seg']['data'].squeeze()
            if not self.format_only:
                truth = sample['gt_sem_seg']['data'].squeeze().to(labels)
                num_classes = len(self.dataset_meta['classes'])
                self.results.append(self.intersect_and_union(labels, truth, num_classes, self.ignore_index))
            if self.output_dir is not None:
                self.write_labels(labels, sample)
