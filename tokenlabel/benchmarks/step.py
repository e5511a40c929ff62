"""Benchmark of a training step on a batch on the device, compared with a straightforward implementation."""

import argparse
import copy
import random

import timm
import torch
from mmengine.optim import build_optim_wrapper
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import roi_align

from tokenlabel.benchmarks.loss import SMOOTHING, smoothed_softmax
from tokenlabel.benchmarks.timing import report, seconds, versions
from tokenlabel.data.sample import Batch
from tokenlabel.engine import SteppedEMA, TokenLabelClassifier
from tokenlabel.models.token_logits import TokenLogits

LR, WEIGHT_DECAY, MOMENTUM = 1e-3, 0.05, 8e-5
CELLS, K = 18, 5
# Peak bfloat16 FLOP/s of tensor cores without sparsity, from NVIDIA's data sheets.
PEAKS = {'H100 PCIe': 756e12, 'H100': 989e12, 'H200': 989e12, 'GH200': 989e12, 'A100': 312e12, 'L40S': 362e12}


def benchmark_step(args: argparse.Namespace) -> None:
    """Times forward, targets, loss, backward, optimizer step and EMA update, repeated on one batch."""
    print(versions())
    torch.manual_seed(0)
    random.seed(0)  # for the crops
    batch, boxes = batch_on(args.device, args.batch, args.img_size, args.classes)
    ours = Ours(args)
    plain = Straightforward(args, copy.deepcopy(ours.classifier.model), boxes)
    first = [seeded(way, batch) for way in (ours, plain)]
    print(f'loss of the first step {first[0]:.4f} (ours), {first[1]:.4f} (straightforward)')
    ours.step(batch), plain.step(batch)

    pairs = [
        (seconds(lambda: ours.step(batch), args.device), seconds(lambda: plain.step(batch), args.device))
        for _ in range(args.runs)
    ]
    report(f'a step of {args.model}, {args.batch} images', pairs)
    times = sorted(fast for fast, _ in pairs)
    step = times[len(times) // 2]
    print(f'{args.batch / step:.1f} images/s')
    supervise = ours.supervision(batch)
    supervise()
    supervision = sorted(seconds(supervise, args.device) for _ in range(args.runs))[args.runs // 2]
    print(f'targets and loss with its gradient: {1000 * supervision:.1f} ms, {supervision / step:.1%} of the step')
    flops = 3 * args.batch * forward_flops(args)
    peak = 1e12 * args.peak_tflops if args.peak_tflops else peak_of(args.device)
    used = f', {flops / step / peak:.1%} of the device' if peak else ''
    print(f'{flops / 1e12:.2f} TFLOP a step, {flops / step / 1e12:.2f} TFLOP/s{used}')


def seeded(way: 'Ours | Straightforward', batch: Batch) -> Tensor:
    """Loss of a step. Both implementations draw the same random numbers, unless the network is compiled."""
    torch.manual_seed(1)
    return way.step(batch)


class Ours:
    """The classifier of the configs, with its OptimWrapper and EMA."""

    def __init__(self, args: argparse.Namespace) -> None:
        cuda = args.device.startswith('cuda')
        self.classifier = TokenLabelClassifier(
            network_arguments(args),
            targets={'type': 'TokenLabels', 'smoothing': SMOOTHING},
            compile=args.compile,
            grad_checkpointing=args.grad_checkpointing,
            channels_last=True,
        )
        self.classifier.to(args.device).train()
        optimizer = {'type': 'AdamW', 'lr': LR, 'weight_decay': WEIGHT_DECAY, 'fused': True}
        kind = {'type': 'SkippingAmpOptimWrapper', 'dtype': 'bfloat16'} if cuda else {'type': 'SkippingOptimWrapper'}
        self.wrapper = build_optim_wrapper(self.classifier, {**kind, 'optimizer': optimizer})
        self.average = SteppedEMA(self.classifier, momentum=MOMENTUM, gamma=9)

    def step(self, batch: Batch) -> Tensor:
        losses = self.classifier.train_step(batch, self.wrapper)
        self.average.update_parameters(self.classifier, self.wrapper.stepped)
        return losses['loss']

    def supervision(self, batch: Batch):
        """A function that computes targets, loss and the gradient of the logits, without the network."""
        with self.wrapper.optim_context(self.classifier):
            data = self.classifier.data_preprocessor(batch, training=True)['batch']
            cls, tokens, *rest = self.classifier(data)
        logits = TokenLogits(cls.detach().requires_grad_(), tokens.detach().requires_grad_(), *rest)
        return lambda: self.classifier.parse_losses(self.classifier._losses(logits, data))[0].backward()


class Straightforward:
    """The same network with dense targets by RoIAlign, and one kernel per weight in optimizer and EMA."""

    def __init__(self, args: argparse.Namespace, network: nn.Module, boxes: Tensor) -> None:
        self.network, self.boxes = network.to(memory_format=torch.contiguous_format), boxes
        if args.grad_checkpointing:
            self.network.set_grad_checkpointing(False)
        self.average = copy.deepcopy(network)
        self.mixed = torch.autocast(args.device.split(':')[0], torch.bfloat16, enabled=args.device.startswith('cuda'))
        self.optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=WEIGHT_DECAY, foreach=False)
        mean, std = network.pretrained_cfg['mean'], network.pretrained_cfg['std']
        self.mean, self.std = (255 * torch.tensor(v, device=args.device).view(1, 3, 1, 1) for v in (mean, std))

    def step(self, batch: Batch) -> Tensor:
        self.optimizer.zero_grad()
        images = (batch['image'].to(self.mean.device).float() - self.mean) / self.std
        with self.mixed:
            logits = self.network(images)
        loss = self.loss(logits, batch)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for average, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
                average.lerp_(weight, MOMENTUM)
        return loss.detach()

    def loss(self, logits: TokenLogits, batch: Batch) -> Tensor:
        cls, tokens = logits.cls.float(), logits.tokens.float()
        classes = batch['classes'].to(cls.device).long()
        maps = cls.new_zeros(len(cls), cls.shape[1], CELLS, CELLS)
        maps.scatter_(1, classes, batch['scores'].to(cls.device).float())
        rois = torch.cat([torch.arange(len(cls), device=cls.device)[:, None], self.boxes * CELLS], 1)
        cls_target = smoothed_softmax(roi_align(maps, rois, (1, 1), aligned=True).flatten(1))
        token_target = smoothed_softmax(roi_align(maps, rois, logits.grid, aligned=True).flatten(2).transpose(1, 2))
        y1, x1, y2, x2 = logits.mix_box.tolist()
        share = (y2 - y1) * (x2 - x1) / tokens.shape[1]
        cls_target = (1 - share) * cls_target + share * cls_target.flip(0)
        cls_loss = -(cls_target * cls.log_softmax(-1)).sum(-1).mean()
        return cls_loss - (token_target * tokens.log_softmax(-1)).sum(-1).mean()


def network_arguments(args: argparse.Namespace) -> dict:
    """Arguments of `timm.create_model`."""
    size = {'img_size': args.img_size, 'num_classes': args.classes}
    return {'model_name': args.model, 'drop_path_rate': args.drop_path, 'mix_token': True} | size


def batch_on(device: str, num_images: int, size: int, num_classes: int) -> tuple[Batch, Tensor]:
    """A random batch with label maps and Views of ImageNet-like crops, and the crops as boxes [N, 4] in [0, 1]."""
    image = Image.new('RGB', (500, 375))
    crops = [RandomResizedCropAndInterpolation.get_params(image, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(num_images)]
    top, left, height, width = (torch.tensor(crops).double() / torch.tensor([375.0, 500, 375, 500])).unbind(1)
    zero = torch.zeros(num_images)
    batch = {
        'image': torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8).to(device),
        'label': torch.zeros(num_images, dtype=torch.int64, device=device),
        'scores': (5 + 3 * torch.randn(num_images, K, CELLS, CELLS)).half().to(device),
        'classes': torch.rand(num_images, num_classes, CELLS, CELLS).topk(K, 1).indices.int().to(device),
        'view': torch.stack([torch.stack([width, zero, left], -1), torch.stack([zero, height, top], -1)], 1),
    }
    batch['map_view'] = torch.eye(3)[:2].repeat(num_images, 1, 1)
    return batch, torch.stack([left, top, left + width, top + height], 1).float().to(device)


def forward_flops(args: argparse.Namespace) -> float:
    """FLOPs of the forward pass of one image, two per multiply-add; counted on the meta device."""
    network = timm.create_model(args.model, **{k: v for k, v in network_arguments(args).items() if k != 'model_name'})
    with FlopCounterMode(display=False) as counter:
        network.to('meta').train()(torch.empty(2, 3, args.img_size, args.img_size, device='meta'))
    return counter.get_total_flops() / 2


def peak_of(device: str) -> float | None:
    """Peak bfloat16 FLOP/s of a device; None if unknown."""
    name = torch.cuda.get_device_name(device) if device.startswith('cuda') else ''
    return next((peak for part, peak in PEAKS.items() if part in name), None)
