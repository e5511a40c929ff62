"""Checks a segmentation model before training: its losses, and a forward pass on the meta device."""

import copy
import os
from collections.abc import Mapping

import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses.utils import get_class_weight
from mmseg.registry import DATASETS, MODELS
from torch import Tensor, nn
from torch.func import functional_call

from mmseg_ext.checks.config_parts import EDGE_HEADS, datasets_of, heads_of, losses_of, metrics_of, model_of, steps_of
from mmseg_ext.checks.datasets import is_stored_here
from mmseg_ext.losses import CrossEntropyLoss
from mmseg_ext.segmentors.batched_encoder_decoder import check_test_cfg
from tokenlabel.errors import UserError

MEASURED = {'mIoU': ('mIoU', 'mAcc'), 'mDice': ('mDice', 'mAcc'), 'mFscore': ('mFscore', 'mPrecision', 'mRecall')}
ONE_VALUE = 'Expected more than 1 value per channel'  # BatchNorm's error for a batch of one 1x1 map


def check_model(config: Config, processes: int, on_gpus: bool) -> None:
    """Checks that crops, backbone, neck, heads, losses and `save_best` fit together.

    Builds the model once, without pretrained weights, and runs one batch of crops on torch's `meta` device, where
    tensors have shapes but no contents. With several processes, only rank 0 checks.

    Args:
        config: A segmentation config whose `custom_imports` are done.
        processes: Number of training processes.
        on_gpus: Whether they train on GPUs, where SyncBN spans the processes.

    Raises:
        UserError: Something does not fit; the message gives its path in the config.
    """
    model, place = model_of(config)
    if os.environ.get('RANK', '0') != '0' or not model:
        return
    check_test_cfg(model.get('test_cfg') or {})
    _check_best(config)
    for head, where in heads_of(config):
        _check_head(head, where)
    if isinstance(model.get('decode_head'), (list, tuple)) and not str(model.get('type')).startswith('Cascade'):
        raise UserError(
            f'{place}.decode_head is a list, and {model.get("type")} has one: put the others into auxiliary_head.'
        )
    size = _check_crop(config, model, place)
    batch = _smallest_batch(config, processes)
    built = MODELS.build(_without_downloads(model))
    if not isinstance(built, EncoderDecoder):
        return
    for name, head in _plain_heads(built):
        _check_losses(head, f'{place}.{name}', on_gpus)
    channels = _check_channels(config, model.get('backbone') or {}, place)
    if size is not None:
        spans = processes > 1 and on_gpus
        _check_pass(built, place, (channels, *size), min(batch, 2), spans)


def _check_best(config: Config) -> None:
    """Checks that the score of `save_best` is measured."""
    hook = (config.get('default_hooks') or {}).get('checkpoint') or {}
    save_best = hook.get('save_best')
    metrics = [metric for metric, _ in metrics_of(config, 'val')]
    if not save_best or any(str(metric.get('type')) not in ('StreamingIoU', 'IoUMetric') for metric in metrics):
        return
    measured = []
    for metric in metrics:
        kinds = metric.get('iou_metrics', ['mIoU'])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        names = ['aAcc', *(name for kind in kinds for name in MEASURED.get(kind, ()))]
        measured += [f'{metric["prefix"]}/{name}' if metric.get('prefix') else name for name in names]
    for name in [save_best] if isinstance(save_best, str) else save_best:
        if measured and name not in ('auto', *measured):
            raise UserError(
                f'default_hooks.checkpoint.save_best is {name!r}, which the validation does not measure: set one of '
                f'{", ".join(dict.fromkeys(measured))}.'
            )


def _check_head(head: Mapping, place: str) -> None:
    """Checks that a head has at least two classes and its losses one weight per output."""
    num_classes, channels = head.get('num_classes'), head.get('out_channels') or head.get('num_classes')
    if head.get('type') in EDGE_HEADS or not isinstance(num_classes, int):
        return
    if num_classes == 1:
        raise UserError(
            f'{place}.num_classes is 1, so every prediction is correct: name the background as a class too and set 2; '
            'with out_channels=1 and use_sigmoid=True in loss_decode the head has one output for both.'
        )
    if channels == 1 and num_classes != 2:
        raise UserError(
            f'{place}.out_channels is 1, which is for two classes, but num_classes is {num_classes}: leave '
            'out_channels out.'
        )
    for loss, where in losses_of(head, place):
        try:
            weights = get_class_weight(loss.get('class_weight'))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f'{where}.class_weight, {loss["class_weight"]}, cannot be read ({error}): give a list, or a JSON or '
                'NumPy file of one number for each class.'
            ) from error
        if weights is not None and (not hasattr(weights, '__len__') or len(weights) != channels):
            count = len(weights) if hasattr(weights, '__len__') else 'no list of'
            raise UserError(
                f'{where}.class_weight has {count} weights and the head {channels} outputs: give one weight for each.'
            )
        if weights is not None and not any(weights):
            raise UserError(f'{where}.class_weight is 0 for all classes, so nothing is learned: set some above 0.')


def _check_crop(config: Config, model: Mapping, place: str) -> tuple[int, int] | None:
    """(height, width) of training images in pixels; None if the config does not set it."""
    preprocessor = model.get('data_preprocessor') or {}
    size, divisor = _pair(preprocessor.get('size')), preprocessor.get('size_divisor')
    if str(preprocessor.get('type')).endswith('SegDataPreProcessor') and (size is None) == (divisor is None):
        raise UserError(
            f'{place}.data_preprocessor has {"neither size nor" if size is None else "both size and"} size_divisor, '
            'but exactly one must set the padding of training images: set size to the crop_size.'
        )
    crops = [
        (_pair(step['crop_size']), f'{where}.crop_size')
        for dataset, path, _ in datasets_of(config, 'train')
        for step, where in steps_of(dataset.get('pipeline', []), f'{path}.pipeline')
        if step.get('type') == 'RandomCrop' and step.get('crop_size')
    ]
    for crop, where in crops:
        if size is not None and crop is not None and crop != size:
            raise UserError(
                f'{where} is {crop}, but {place}.data_preprocessor.size, the padded size, is {size}: make them equal.'
            )
    return size or (crops[-1][0] if crops else None)


def _smallest_batch(config: Config, processes: int) -> int:
    """Number of images in the smallest training batch of a process, which may be the last one of an epoch."""
    loader = config.get('train_dataloader') or {}
    batch = loader.get('batch_size') or 1
    sampler = DATA_SAMPLERS.get((loader.get('sampler') or {}).get('type') or 'DefaultSampler')
    ends = sampler is not None and issubclass(sampler, DefaultSampler) and not loader.get('drop_last')
    datasets = list(datasets_of(config, 'train'))
    if batch == 1 or not ends or not datasets or not all(wraps or is_stored_here(one) for one, _, wraps in datasets):
        return batch
    images = len(DATASETS.build(copy.deepcopy(loader.dataset)))
    return -(-images // processes) % batch or batch


def _check_channels(config: Config, backbone: Mapping, place: str) -> int:
    """How many channels images have that training sees, as far as the config tells: those that the backbone takes."""
    key = next((key for key in ('in_chans', 'in_channels') if isinstance(backbone.get(key), int)), None)
    takes = backbone[key] if key else 3
    for dataset, path, _ in datasets_of(config, 'train'):
        for step, where in steps_of(dataset.get('pipeline', []), f'{path}.pipeline'):
            if step.get('type') != 'LoadImageFromFile':
                continue
            gives = step.get('in_channels') or (1 if step.get('color_type') == 'grayscale' else 3)
            if key and takes != gives:
                other = f', or {place}.in_channels={takes} to read images of {takes}'
                if takes == 1:
                    other = (
                        f", or read them with color_type='grayscale' everywhere, and give {place}.data_preprocessor a "
                        'mean and std of one number and no bgr_to_rgb'
                    )
                raise UserError(
                    f'{place}.backbone.{key} is {takes}, and {where} (LoadImageFromFile) gives images of {gives} '
                    f'channel{"s" if gives > 1 else ""}: set {key}={gives}{other}.'
                )
            takes = gives
    return takes


def _pair(size: object) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    return tuple(size) if isinstance(size, (list, tuple)) and len(size) == 2 else None


def _without_downloads(model: Mapping) -> Mapping:
    """The model's config without pretrained weights that building it would download."""
    model = copy.deepcopy(model)
    if (model.get('backbone') or {}).get('pretrained') is True:
        model['backbone']['pretrained'] = False
    return model


def _plain_heads(model: nn.Module) -> list[tuple[str, BaseDecodeHead]]:
    """The heads that use the loss of MMSegmentation's base class, each with its path in the model."""
    found = []
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model, name, None)
        numbered = isinstance(head, nn.ModuleList)
        for number, one in enumerate(head if numbered else [head]):
            kind = type(one)
            is_plain = isinstance(one, BaseDecodeHead) and (kind.loss, kind.loss_by_feat) == (
                BaseDecodeHead.loss,
                BaseDecodeHead.loss_by_feat,
            )
            if is_plain:
                found.append((f'{name}.{number}' if numbered else name, one))
    return found


def _check_losses(head: BaseDecodeHead, place: str, on_gpus: bool) -> None:
    """Checks that the losses of a head can distinguish its classes, and that its cross entropy works."""
    losses = head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, head.out_channels, 16, 16, generator=generator).requires_grad_()
    labels = torch.arange(2 * 16 * 16).view(2, 16, 16) % head.num_classes
    if head.ignore_index is not None:
        labels[:, :2] = head.ignore_index
    for loss in losses:
        kind = type(loss).__name__
        if head.out_channels == 1 and not getattr(loss, 'use_sigmoid', True):
            raise UserError(
                f'{place}.out_channels is 1 but its {kind} uses a softmax, whose only output is always 1: set '
                'use_sigmoid=True in loss_decode, or leave out_channels out.'
            )
        if not isinstance(loss, CrossEntropyLoss) and on_gpus:
            continue  # MMSegmentation's FocalLoss, for example, works on GPUs but not on CPU tensors
        try:
            value = loss(logits, labels, weight=None, ignore_index=head.ignore_index)
        except Exception as error:  # wrong settings can raise any exception
            raise UserError(
                f'{place}.loss_decode ({kind}) fails for {head.num_classes} classes and {head.out_channels} outputs '
                f'({type(error).__name__}: {_first_line(error)}): correct its settings'
                f'{"" if isinstance(loss, CrossEntropyLoss) else ", or train on a GPU"}.'
            ) from error
        if not torch.isfinite(value).all():
            raise UserError(f'{place}.loss_decode ({kind}) is {float(value.sum())} at the start: correct its settings.')


class _Pass(nn.Module):
    """A segmentor that passes images through all of its parts and records the current one.

    Args:
        model: A segmentor.
        place: Its path in the config.

    Attributes:
        part: Name of the part that ran last, or failed.
        given: The input maps [B, C, H, W] of this part.
    """

    def __init__(self, model: nn.Module, place: str) -> None:
        super().__init__()
        self.model, self.place = model, place
        self.part, self.given = f'{place}.backbone', []

    def forward(self, images: Tensor) -> None:
        self.part, self.given = f'{self.place}.backbone', [images]
        features = self.model.backbone(images)
        if self.model.with_neck:
            self.part, self.given = f'{self.place}.neck', features
            features = self.model.neck(features)
        for name, head in _plain_heads(self.model):
            self.part, self.given = f'{self.place}.{name}', features
            head(features)


def _check_pass(model: nn.Module, place: str, size: tuple[int, int, int], batch: int, norms_span: bool) -> None:
    """Checks that a batch of crops passes through the model.

    Raises:
        UserError: A part does not take the output of the previous one.
    """
    model.train()
    if norms_span:
        for module in model.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.eval()  # SyncBN's batch is larger than that of one process
    trial, error = _tried(model, place, size, batch, 'meta')
    if error is not None:  # a real error, or an operation that needs values: run again on the CPU to find out
        trial, error = _tried(model, place, size, batch, 'cpu')
    if error is None:
        return
    if isinstance(error, UserError):
        raise error
    _, height, width = size
    if ONE_VALUE in str(error):
        raise UserError(
            f'A batch of one crop of {height}x{width} leaves one value per channel to a BatchNorm in {trial.part}: set '
            'train_dataloader.batch_size to 2 or more (and drop_last=True where the last one of an epoch is left with '
            'one image), train on several GPUs with SyncBN, or set another norm_cfg, '
            "such as dict(type='GN', num_groups=32)."
        ) from error
    why = f'({type(error).__name__}: {_first_line(error)})'
    if trial.part.endswith('.backbone'):
        raise UserError(
            f'{trial.part} does not take crops of {height}x{width} {why}: set crop_size and '
            f'{place}.data_preprocessor.size to what it takes.'
        ) from error
    given = ', '.join('x'.join(map(str, x.shape[1:])) for x in trial.given)
    raise UserError(
        f'{trial.part} does not take the {len(trial.given)} maps that it gets, {given} (channels x height x width), '
        f'{why}: correct its in_channels and in_index.'
    ) from error


def _tried(
    model: nn.Module, place: str, size: tuple[int, int, int], batch: int, device: str
) -> tuple[_Pass, Exception | None]:
    """A forward pass of a copy of the model, and its exception or None."""
    tensors = [*model.parameters(), *model.buffers()]
    shared = {id(x): x for x in tensors} if device == 'meta' else {}
    trial = _Pass(copy.deepcopy(model, shared), place)
    weights = {}
    if device == 'meta':
        named = (*trial.named_parameters(), *trial.named_buffers())
        weights = {name: torch.empty_like(x, device='meta') for name, x in named}
    try:
        with torch.no_grad():
            functional_call(trial, weights, torch.zeros(batch, *size, device=device))
    except Exception as error:  # of any part
        return trial, error
    return trial, None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or 'no reason given').splitlines()[0][:200]
