"""Benchmark of segmentation evaluation: batched windows and a streaming metric, compared with MMSegmentation."""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_ext.evaluation import StreamingIoU
from tokenlabel.benchmarks.loss import MEGABYTE, peak_memory
from tokenlabel.benchmarks.timing import report, seconds, versions
from tokenlabel.engine.config.run_config import load_config


def benchmark_segment(args: argparse.Namespace) -> None:
    """Times prediction and metric of both implementations with the same weights, from images on the host to scores."""
    print(versions())
    MMLogger.get_instance('benchmark', log_level='ERROR')
    config = load_config(args.config, {})
    original, ours = models(config, args)
    test_cfg = ', '.join(f'{key} {value}' for key, value in original.test_cfg.items())
    print(f'{args.config.stem}: {args.images} images of {args.height} x {args.width}, {test_cfg}', end='; ')
    print(f'ours {args.windows_per_batch} windows at once, {args.precision or "float32"}')

    images = samples(args)
    ways = [partial(evaluated, ours, args.batch, StreamingIoU), partial(evaluated, original, 1, IoUMetric)]
    compare_results(ours, original, images, args)
    for way in ways:
        way(images)
    clock = partial(
        cpu_seconds if args.device == 'cpu' and torch.get_num_threads() == 1 else seconds, device=args.device
    )
    pairs = [tuple(clock(partial(way, images)) for way in ways) for _ in range(args.runs)]
    report('evaluation', pairs)
    for name, times in zip(('ours', 'original'), zip(*pairs, strict=True), strict=True):
        print(f'  {name}: {args.images / statistics.median(times):.3g} images/s')
    first = images[:1]
    for at_once in dict.fromkeys((1, args.windows_per_batch)):
        ours.test_cfg.windows_per_batch = at_once
        peaks = [peak_memory(partial(step, model, first), args.device) / MEGABYTE for model in (ours, original)]
        print(f'one image, {at_once} windows at once: peak memory {peaks[0]:.0f} MB against {peaks[1]:.0f} MB', end='')
        print(' beside the weights')


def models(config: Config, args: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """MMSegmentation's segmentor and ours, which share random weights."""
    init_default_scope('mmseg')
    settings = copy.deepcopy(config.model)
    settings.pop('auxiliary_head', None)
    settings.pop('num_classes', None)
    settings.backbone.pop('init_cfg', None)
    settings.decode_head.num_classes = args.classes
    torch.manual_seed(0)
    original, ours = (
        revert_sync_batchnorm(MODELS.build(ConfigDict({**copy.deepcopy(settings), 'type': name})))
        for name in ('EncoderDecoder', 'BatchedEncoderDecoder')
    )
    original.to(args.device).eval()
    ours.to(args.device).eval().load_state_dict(original.state_dict(), assign=True)
    ours.test_cfg.update(windows_per_batch=args.windows_per_batch, precision=args.precision)
    return original, ours


def samples(args: argparse.Namespace) -> list[tuple[torch.Tensor, SegDataSample]]:
    """Random images and labels in the format of a DataLoader."""
    size = (args.height, args.width)
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8),
            SegDataSample(
                metainfo=dict(ori_shape=size, img_shape=size, img_path=f'{index}.jpg'),
                gt_sem_seg=PixelData(data=torch.randint(args.classes, (1, *size), generator=generator)),
            ),
        )
        for index in range(args.images)
    ]


@torch.no_grad()
def step(model: nn.Module, images: list[tuple[torch.Tensor, SegDataSample]]) -> list[SegDataSample]:
    """Predictions for a batch."""
    inputs, annotated = zip(*images, strict=True)
    return model.test_step(dict(inputs=list(inputs), data_samples=[sample.clone() for sample in annotated]))


def evaluated(model: nn.Module, batch: int, kind: type[IoUMetric], images: list) -> dict:
    """Predicts all images in batches and computes the metric."""
    metric = kind(prefix='benchmark')
    metric.dataset_meta = dict(classes=[str(index) for index in range(model.num_classes)])
    for begin in range(0, len(images), batch):
        predictions = step(model, images[begin : begin + batch])
        metric.process({}, [prediction.to_dict() for prediction in predictions])
    return metric.evaluate(len(images))


def compare_results(ours: nn.Module, original: nn.Module, images: list, args: argparse.Namespace) -> None:
    """Prints how much the logits, labels and metrics of both implementations differ."""
    ours.test_cfg.keep_logits = True
    one, other = (step(model, images[:1])[0] for model in (ours, original))
    ours.test_cfg.keep_logits = False
    error = (one.seg_logits.data - other.seg_logits.data).abs().max() / other.seg_logits.data.abs().max()
    differ = (one.pred_sem_seg.data != other.pred_sem_seg.data).float().mean()
    print(f'logits within {float(error):.1e} of the largest, {float(differ):.2%} of the labels differ', end='; ')
    numbers = []
    for kind in (StreamingIoU, IoUMetric):
        metric = kind(prefix='benchmark')
        metric.dataset_meta = dict(classes=[str(index) for index in range(args.classes)])
        metric.process({}, [other.to_dict()])
        numbers.append(metric.evaluate(1))
    print(f'on the same labels the metrics are {"equal" if numbers[0] == numbers[1] else "NOT equal"}')


def cpu_seconds(run: Callable[[], object], device: str) -> float:
    """CPU time of one run on one thread, on which other load on the machine has little effect."""
    begin = time.process_time()
    run()
    return time.process_time() - begin
