"""Test-time augmentation with shared batches of windows and a running mean over the views."""

from collections.abc import Iterable
from itertools import islice

import torch
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_ext.segmentors.windows import WindowedImage


@MODELS.register_module()
class BatchedTTAModel(SegTTAModel):
    """MMSegmentation's SegTTAModel around a `BatchedEncoderDecoder`: the same mean of the views' probabilities.

    Windows of all views of all images of a batch go through the network together. Logits of a view are freed once they
    are added to the mean. `seg_logits` of a prediction holds the mean probabilities [C, H, W].
    """

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Predictions for data from `TestTimeAug`: `inputs[view][image]`, `data_samples[view][image]`."""
        images = list(zip(*data['inputs'], strict=True))
        samples = list(zip(*data['data_samples'], strict=True))
        pairs = (
            pair
            for views, view_samples in zip(images, samples, strict=True)
            for pair in zip(views, view_samples, strict=True)
        )
        windowed = self.module.windowed(self.module.preprocessed(pairs))
        return [self._merged(islice(windowed, len(views))) for views in images]

    def _merged(self, windowed: Iterable[tuple[WindowedImage, SegDataSample]]) -> SegDataSample:
        total, num_views, finite = None, 0, []
        for image, sample in windowed:
            logits = self.module.logits(image, sample.metainfo)
            probabilities = logits.softmax(0) if len(logits) > 1 else logits.sigmoid()
            if total is None:
                total, merged = probabilities, sample
            else:
                total += probabilities
            num_views += 1
            finite.append(image.is_finite)
        total /= num_views
        if len(total) > 1:
            labels = total.argmax(0, keepdim=True)
        else:
            labels = (total > self.module.decode_head.threshold).to(total)
        merged.set_data(dict(seg_logits=PixelData(data=total), pred_sem_seg=PixelData(data=labels)))
        merged.set_data(dict(finite_logits=torch.stack(finite).all()))
        return merged
