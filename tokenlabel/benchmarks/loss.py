"""Benchmark of sparse token targets and their loss, compared with dense ones."""

import argparse
import itertools
import json
import os
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.ops import roi_align

from tokenlabel.benchmarks.timing import report, seconds, versions
from tokenlabel.models.token_logits import TokenLogits
from tokenlabel.objective.loss import TokenLabelLoss
from tokenlabel.objective.soft_cross_entropy import kernel_is_faster
from tokenlabel.objective.targets import token_targets

SMOOTHING = 0.1
MEGABYTE = 10**6


def benchmark_loss(args: argparse.Namespace) -> None:
    """Times targets, loss and gradient of one batch of random crops, from score maps to gradients of the logits."""
    print(versions())
    torch.manual_seed(0)
    random.seed(0)  # for the crops
    device, batch, num_classes, grid = args.device, args.batch, args.classes, (args.grid, args.grid)
    scores = (5 + 3 * torch.randn(batch, args.k, args.cells, args.cells, device=device)).half()
    classes = torch.rand(batch, num_classes, args.cells, args.cells, device=device).topk(args.k, 1).indices
    image = Image.new('RGB', (500, 375))
    crops = [RandomResizedCropAndInterpolation.get_params(image, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(batch)]
    top, left, height, width = (torch.tensor(crops).double() / torch.tensor([375.0, 500, 375, 500])).unbind(1)
    zero = torch.zeros(batch)
    view = torch.stack([torch.stack([width, zero, left], -1), torch.stack([zero, height, top], -1)], 1)
    boxes = torch.stack([left, top, left + width, top + height], 1).float().to(device)
    dtype = getattr(torch, args.dtype)
    shapes = [(batch, num_classes), (batch, args.grid**2, num_classes)]
    drawn = [torch.randn(shape, device=device, dtype=dtype) for shape in shapes]

    def sparse(cls: Tensor, tokens: Tensor, fused: bool = True) -> Tensor:
        targets = token_targets(scores, classes, view, grid, num_classes, SMOOTHING)
        return TokenLabelLoss(fused=fused, in_place=True)(TokenLogits(cls, tokens, grid), targets)

    def dense(cls: Tensor, tokens: Tensor) -> Tensor:
        maps = torch.zeros(batch, num_classes, args.cells, args.cells, device=device)
        maps.scatter_(1, classes, scores.float())
        rois = torch.cat([torch.arange(batch, device=device)[:, None], boxes * args.cells], 1)
        cls_target = smoothed_softmax(roi_align(maps, rois, (1, 1), aligned=True).flatten(1))
        token_target = smoothed_softmax(roi_align(maps, rois, grid, aligned=True).flatten(2).transpose(1, 2))
        cls_loss = -(cls_target * cls.float().log_softmax(-1)).sum(-1).mean()
        return cls_loss - (token_target * tokens.float().log_softmax(-1)).sum(-1).mean()

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], tuple[float, Tensor]]:
        # as the outputs of a network, the logits are not leaf tensors
        logits = [x.clone().requires_grad_().view_as(x) for x in drawn]

        def run() -> tuple[float, Tensor]:
            value = loss(*logits)
            return value.item(), torch.autograd.grad(value, logits)[1]

        return run

    (sparse_value, sparse_gradient), (dense_value, dense_gradient) = step(sparse)(), step(dense)()
    error = float((sparse_gradient - dense_gradient).abs().max() / dense_gradient.abs().max())
    print(f'loss {sparse_value:.6f} (sparse), {dense_value:.6f} (dense); gradients within {error:.1e} of the largest')

    def compare(what: str, *losses: Callable[[Tensor, Tensor], Tensor]) -> None:
        report(what, [tuple(seconds(step(loss), device) for loss in losses) for _ in range(args.runs)])
        peaks = [peak_memory(step(loss), device) / MEGABYTE for loss in losses]
        print(f'  peak memory beside the logits {peaks[0]:.0f} MB against {peaks[1]:.0f} MB', end=', ')
        print(f'{peaks[1] / peaks[0]:.1f} times less')

    compare('targets, loss and gradient', sparse, dense)
    ids = token_targets(scores, classes, view, grid, num_classes).tokens.ids
    if kernel_is_faster(drawn[1].clone().requires_grad_(), ids):
        plain = partial(sparse, fused=False)
        step(plain)()
        compare('the same, Triton kernel against plain PyTorch', sparse, plain)


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Peak memory of tensors during a run in bytes, without the tensors that existed before."""
    if device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # otherwise the profiler logs each start and stop
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(f'{folder}/trace.json')
        events = json.loads(Path(folder, 'trace.json').read_text())['traceEvents']
    memory = sorted((event for event in events if event['name'] == '[memory]'), key=lambda event: event['ts'])
    return max(itertools.accumulate(event['args']['Bytes'] for event in memory))


def smoothed_softmax(scores: Tensor) -> Tensor:
    """Softmax over the classes, with label smoothing as in the release."""
    num_classes = scores.shape[-1]
    return scores.softmax(-1) * (1 - SMOOTHING + SMOOTHING / num_classes) + SMOOTHING / num_classes
