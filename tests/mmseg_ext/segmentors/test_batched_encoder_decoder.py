"""Batched windows give what MMSegmentation's own EncoderDecoder gives."""

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.segmentors import BatchedTTAModel, batched_encoder_decoder
from tests.tiny_segmentors import segmentor
from tokenlabel.errors import UserError

SIDES = st.integers(9, 60)
SHARES = st.floats(0.3, 1)
SLIDE = dict(mode='slide', crop_size=(32, 32), stride=(20, 24))


@cache
def both(head: str = 'UPerHead') -> tuple[nn.Module, nn.Module]:
    """MMSegmentation's segmentor and ours, with the same weights."""
    theirs, ours = segmentor(head, type='EncoderDecoder'), segmentor(head)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def configured(head: str = 'UPerHead', **test_cfg) -> tuple[nn.Module, nn.Module]:
    """`both`, tested in this way."""
    for model in both(head):
        model.test_cfg = ConfigDict(test_cfg, keep_logits=True)
    return both(head)


def batch(*sizes: tuple[int, int], seed: int = 0, **meta) -> dict:
    """Images of these sizes as a loader gives them."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    return dict(inputs=inputs, data_samples=[sample(size, **meta) for size in sizes])


def sample(size: tuple[int, int], **meta) -> SegDataSample:
    annotation = PixelData(data=torch.zeros(1, *size, dtype=torch.int64))
    return SegDataSample(metainfo=dict(img_path='a.jpg', ori_shape=size, img_shape=size) | meta, gt_sem_seg=annotation)


def step(model: nn.Module, data: dict) -> list[SegDataSample]:
    with torch.no_grad():
        return model.test_step(copy.deepcopy(data))


def assert_same_predictions(ours: list[SegDataSample], theirs: list[SegDataSample]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one.seg_logits.data, other.seg_logits.data)
        assert one.pred_sem_seg.data.shape == other.pred_sem_seg.data.shape
        assert (one.pred_sem_seg.data == other.pred_sem_seg.data).float().mean() > 0.999
        assert torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@settings(max_examples=25)
@given(SIDES, SIDES, st.tuples(SIDES, SIDES), st.tuples(SHARES, SHARES), st.integers(1, 5))
@torch.no_grad()
def test_windows_of_any_size_and_stride_give_the_logits_of_slide_inference(height, width, crop, shares, at_once):
    stride = tuple(max(int(share * side), 4) for share, side in zip(shares, crop, strict=True))
    theirs, ours = configured(mode='slide', crop_size=crop, stride=stride, windows_per_batch=at_once)
    inputs = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * width))
    assert_close(ours.inference(inputs, [{}, {}]), theirs.slide_inference(inputs, [{}, {}]))


@pytest.mark.parametrize('head', ['UPerHead', 'FPNHead'])
@pytest.mark.parametrize('test_cfg', [SLIDE, dict(mode='whole')], ids=['slide', 'whole'])
def test_predictions_are_those_of_the_original(head, test_cfg):
    theirs, ours = configured(head, **test_cfg)
    data = batch((45, 70), (45, 70), ori_shape=(90, 131))
    assert_same_predictions(step(ours, data), step(theirs, data))


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_mirrored_images_are_mirrored_back(direction):
    theirs, ours = configured(**SLIDE)
    data = batch((45, 70), flip=True, flip_direction=direction)
    assert_same_predictions(step(ours, data), step(theirs, data))


def test_images_of_different_sizes_share_a_batch_and_keep_their_own_prediction():
    theirs, ours = configured(**SLIDE, windows_per_batch=3)
    data = batch((45, 70), (20, 61), (70, 45), (45, 70))
    alone = [dict(inputs=[one], data_samples=[other]) for one, other in zip(*data.values(), strict=True)]
    assert_same_predictions(step(ours, data), [step(theirs, one)[0] for one in alone])


@pytest.mark.parametrize(('at_once', 'batches'), [(1, [1] * 12), (4, [4, 4, 4]), (5, [5, 5, 2]), (99, [12])])
def test_windows_of_all_images_fill_the_batches(monkeypatch, at_once, batches):
    _, ours = configured(**SLIDE, windows_per_batch=at_once)
    seen = []
    monkeypatch.setattr(ours, 'extract_feat', lambda x: seen.append(len(x)) or type(ours).extract_feat(ours, x))
    step(ours, batch((45, 70), (45, 70)))
    assert seen == batches


@pytest.mark.parametrize('size', [None, (90, 131)])
def test_logits_made_class_by_class_are_the_same(monkeypatch, size):
    _, ours = configured(**SLIDE)
    data = batch((45, 70), **(dict(ori_shape=size) if size else {}))
    at_once = step(ours, data)
    monkeypatch.setitem(batched_encoder_decoder.WORKING_SET, 'cpu', 2 * 131 * 90)
    assert_same_predictions(step(ours, data), at_once)
    monkeypatch.setitem(batched_encoder_decoder.WORKING_SET, 'cpu', 1)
    assert_same_predictions(step(ours, data), at_once)


def test_gradients_flow_where_they_are_asked_for():
    theirs, ours = configured(**SLIDE)
    inputs = torch.randn(1, 3, 40, 56)
    gradients = []
    for model in (theirs, ours):
        model.zero_grad()
        model.predict(inputs.clone())[0].seg_logits.data.square().mean().backward()
        gradients.append(model.decode_head.fpn_bottleneck.conv.weight.grad)
    assert_close(*gradients)


@pytest.mark.parametrize('meta', [dict(), dict(ori_shape=(50, 77), flip=True, flip_direction='horizontal')])
def test_labels_do_without_logits(meta):
    _, ours = configured(**SLIDE)
    data = batch((45, 70), **meta)
    kept = step(ours, data)[0]
    ours.test_cfg.keep_logits = False
    without = step(ours, data)[0]
    assert 'seg_logits' in kept and 'seg_logits' not in without
    assert torch.equal(without.pred_sem_seg.data, kept.pred_sem_seg.data)


def test_predictions_say_whether_their_logits_are_finite():
    _, ours = configured(**SLIDE)
    data = batch((45, 70), (45, 70))
    assert [bool(sample.finite_logits) for sample in step(ours, data)] == [True, True]
    data['inputs'][1] = data['inputs'][1].float()
    data['inputs'][1][0, 3, 4] = torch.nan
    assert [bool(sample.finite_logits) for sample in step(ours, data)] == [True, False]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('precision', [None, 'bfloat16'])
def test_a_gpu_predicts_what_the_cpu_does(precision):
    _, ours = configured(**SLIDE, windows_per_batch=5)
    data = batch((45, 70), (60, 33), ori_shape=(50, 77))
    expected = [one.seg_logits.data for one in step(ours, data)]
    ours.test_cfg.precision = precision
    there = copy.deepcopy(ours).cuda()
    for one, logits in zip(step(there, data), expected, strict=True):
        tolerance = (0.1 if precision else 1e-2) * logits.abs().max()  # convolutions in TF32, or in bfloat16
        assert (one.seg_logits.data.cpu() - logits).abs().max() < tolerance
        assert torch.equal(one.pred_sem_seg.data, one.seg_logits.data.argmax(0, keepdim=True))


def test_one_channel_is_thresholded():
    theirs, ours = (
        segmentor(
            type=kind, num_classes=2, head_options=dict(out_channels=1, threshold=0.4), test_cfg=ConfigDict(SLIDE)
        )
        for kind in ('EncoderDecoder', 'BatchedEncoderDecoder')
    )
    data = batch((45, 70))
    assert_same_predictions(step(ours, data), step(theirs, data))


def test_views_of_an_image_are_averaged_as_by_the_original():
    theirs, ours = configured(**SLIDE, windows_per_batch=4)
    views = [
        batch((45, 70), (60, 33), ori_shape=(50, 77)),
        batch((45, 70), (60, 33), seed=1, ori_shape=(50, 77), flip=True, flip_direction='horizontal'),
        batch((60, 93), (90, 50), seed=2, ori_shape=(50, 77)),
    ]
    data = {key: [view[key] for view in views] for key in views[0]}
    expected = []
    for index in range(2):
        one = {key: [[view[index]] for view in value] for key, value in data.items()}
        expected += step(SegTTAModel(theirs), one)
    merged = step(BatchedTTAModel(ours), data)
    for one, other in zip(merged, expected, strict=True):
        assert one.pred_sem_seg.data.shape == other.pred_sem_seg.data.shape
        assert (one.pred_sem_seg.data == other.pred_sem_seg.data).float().mean() > 0.999
        assert torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data)


def test_mixed_precision_stays_near_and_sums_in_float32():
    _, ours = configured(**SLIDE)
    data = batch((45, 70))
    exact = step(ours, data)[0].seg_logits.data
    ours.test_cfg.precision = 'bfloat16'
    mixed = step(ours, data)[0].seg_logits.data
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize(
    ('test_cfg', 'message'),
    [
        (dict(mode='sliding'), "mode is 'sliding'"),
        (dict(mode='slide', crop_size=(32, 32)), 'no crop_size and stride'),
        (dict(mode='slide', crop_size=(32, 32), stride=(33, 20)), 'leaves gaps'),
        (dict(mode='whole', precision='int8'), "precision is 'int8'"),
        (dict(mode='whole', windows_per_batch=0), 'windows_per_batch is 0'),
    ],
)
def test_a_wrong_test_cfg_is_met_when_the_model_is_built(test_cfg, message):
    with pytest.raises(UserError, match=message):
        segmentor(test_cfg=test_cfg)
