"""Test-time augmentation whose views share windows' batches and are averaged one by one."""

from collections.abc import Iterator

from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor


@MODELS.register_module()
class BatchedTTAModel(SegTTAModel):
    """MMSegmentation's SegTTAModel around a `BatchedEncoderDecoder`: the same mean of the views' probabilities.

    Windows of all views of all images of a batch go through the network together. Of the views' logits no more are kept
    than are in work; `seg_logits` of a prediction holds the mean probabilities [C, H, W].
    """

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Data as `TestTimeAug` and the loader give it: `inputs[view][image]`, `data_samples[view][image]`."""
        images = list(zip(*data['inputs'], strict=True))
        samples = list(zip(*data['data_samples'], strict=True))
        pairs = (
            pair
            for views, view_samples in zip(images, samples, strict=True)
            for pair in zip(views, view_samples, strict=True)
        )
        logits = self.module.logits_of(self.module.preprocessed(pairs))
        return [self._merged(logits, len(views)) for views in images]

    def _merged(self, logits: Iterator[tuple[Tensor, SegDataSample]], num_views: int) -> SegDataSample:
        total, sample = None, None
        for _ in range(num_views):
            view, view_sample = next(logits)
            probabilities = view.softmax(0) if len(view) > 1 else view.sigmoid()
            if total is None:
                total, sample = probabilities, view_sample
            else:
                total += probabilities
        total /= num_views
        if len(total) > 1:
            labels = total.argmax(0, keepdim=True)
        else:
            labels = (total > self.module.decode_head.threshold).to(total)
        sample.set_data(dict(seg_logits=PixelData(data=total), pred_sem_seg=PixelData(data=labels)))
        return sample
