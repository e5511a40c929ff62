"""What a config would train, without training: length, learning rate, parameter groups, memory."""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tokenlabel.engine.classes import resolve_classes
from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.engine.config.custom_keys import warning_of_unmatched
from tokenlabel.engine.length import with_ends
from tokenlabel.engine.optim.global_batch import kept_accumulation
from tokenlabel.errors import UserError

IMAGENET_IMAGES = 1_281_167
# Iterations per epoch, at most, when plotting schedules in epochs: their shape does not depend on it.
DRAWN_PER_EPOCH = 20


def describe(config: Config, processes: int) -> str:
    """The resolved recipe as text, for `processes` processes with one GPU each.

    Opens the data and checks it against the network. If the data is missing and the network has 1000 classes, the
    text assumes the number of images in ImageNet-1k and says so.

    Raises:
        UserError: as training does, if parts of the config do not exist or do not match.
    """
    if config.get('train_dataloader') is None:
        raise UserError(f'Config {config.filename} trains nothing: it sets no train_dataloader.')
    with _quiet():
        model = MODELS.build(_without_downloads(config.model))
        counts = kept_accumulation(config, processes)
        images, data = _images(config, model)
        length = TrainingLength.of(config, images, processes)
        rate, base_rate = _learning_rate(config, processes, counts)
        groups = _groups(model, config.optim_wrapper)
        schedulers, notes = with_ends(
            config.get('param_scheduler') or [], {**config.train_cfg, 'max_iters': length.iterations}
        )
        curve = learning_rates(schedulers, rate, length)
        memory = _memory(config, model, processes)
    counts = counts or config.optim_wrapper.get('accumulative_counts', 1)
    batch = config.train_dataloader.batch_size
    of_process = f'{processes} {"process" if processes == 1 else "processes"} x {batch} images'
    accumulated = f' x {counts} iterations a step' if counts > 1 else ''
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    share = '' if trained == total else f', {trained / 1e6:.2f} M of them trained'
    name = getattr(model, 'architecture', type(model).__name__)
    scaled = '' if rate == base_rate else f', {base_rate:g} scaled with the batch'
    rows = [
        ('network', f'{name}, {total / 1e6:.2f} M parameters{share}'),
        ('starts from', _start(config)),
        ('data', data),
        ('batch', f'{of_process}{accumulated} = {processes * batch * counts}'),
        ('length', str(length)),
        ('learning rate', f'{rate:g}{scaled} ({config.optim_wrapper.optimizer.type})'),
        ('', sparkline(curve)),
        ('', ', '.join(f'{curve[int(at * (len(curve) - 1))]:.2g} at {at:.0%}' for at in (0, 0.05, 0.25, 0.5, 0.75, 1))),
        *(('', note) for note in notes),
        *(('parameters' if number == 0 else '', group) for number, group in enumerate(groups)),
        *([('', warning)] if (warning := warning_of_unmatched(model, config.optim_wrapper)) else []),
        *(('memory' if number == 0 else '', part) for number, part in enumerate(memory)),
    ]
    return '\n'.join(f'{title:<14}{text}'.rstrip() for title, text in rows)


def _start(config: Config) -> str:
    """The weights that training starts from."""
    if whole := config.get('load_from') or config.get('initial_weights'):
        return str(whole)
    backbone = config.model.get('backbone') or {}
    init = backbone.get('init_cfg')
    pretrained = backbone.get('pretrained') or (init.get('checkpoint') if isinstance(init, dict) else None)
    if pretrained:
        return f'{"weights that timm publishes" if pretrained is True else pretrained} (the backbone)'
    return 'its initialisation'


def learning_rates(schedulers: list[dict] | dict, rate: float, length: 'TrainingLength') -> list[float]:
    """The learning rate before each iteration; schedules in epochs give at most `DRAWN_PER_EPOCH` values per epoch."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    per_epoch, steps = length.per_epoch or DRAWN_PER_EPOCH, length.iterations
    if length.epochs:
        per_epoch = min(per_epoch, DRAWN_PER_EPOCH)
        steps = length.epochs * per_epoch
    built = [
        PARAM_SCHEDULERS.build(dict(scheduler), default_args=dict(optimizer=optimizer, epoch_length=per_epoch))
        for scheduler in ([schedulers] if isinstance(schedulers, dict) else schedulers)
    ]
    rates = []
    optimizer.step()  # torch warns where a schedule moves before its optimizer
    for step in range(1, steps + 1):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in built:
            if not scheduler.by_epoch or step % per_epoch == 0:
                scheduler.step()
    return rates


def sparkline(values: list[float], width: int = 60) -> str:
    """Plots values, from 0 to their maximum, as bars of eight heights."""
    bars = '▁▂▃▄▅▆▇█'
    top = max(values) or 1.0
    sampled = [values[column * len(values) // width] for column in range(width)]
    return ''.join(bars[min(7, int(8 * value / top))] for value in sampled)


def optimizer_state_bytes(model: nn.Module, optimizer: dict) -> int:
    """Bytes of optimizer state for the trained parameters, measured with one step on meta tensors."""
    parameters = [
        nn.Parameter(torch.empty_like(parameter, device='meta'))
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    # fused steps need a real device; the state is the same without them
    options = {key: value for key, value in optimizer.items() if key != 'fused'}
    built = OPTIMIZERS.build({**options, 'params': parameters})
    try:
        built.step()
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f'optim_wrapper.optimizer.type={optimizer["type"]} cannot take a plain training step ({error}): choose '
            'another, such as AdamW.'
        ) from error
    state = [value for values in built.state.values() for value in values.values()]
    return sum(value.nbytes for value in state if isinstance(value, torch.Tensor))


def activation_bytes(model: nn.Module, size: tuple[int, int], mixed: bool, channels: int = 3) -> tuple[int, int]:
    """Bytes that autograd saves for the backward pass: (per image, per step).

    Measured with batches of two and three images, without the loss and temporary buffers. Only shapes and dtypes are
    computed (`FakeTensorMode`): CPUs without bfloat16 instructions would take hours for the convolutions of UperNet.

    Args:
        model: a model in training mode that takes images.
        size: height and width of an image, in pixels.
        mixed: whether to run under bfloat16 autocast.
        channels: channels of an image.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    model_tensors = [*model.parameters(), *model.buffers()]
    # held until the end: an address that is free is used again
    model_tensors += [fake.from_tensor(tensor) for tensor in model_tensors]
    model_storages = {tensor.untyped_storage()._cdata for tensor in model_tensors}
    kept = []
    for batch in (2, 3):
        storages = {}

        def keep(tensor: torch.Tensor, storages: dict = storages) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in model_storages:
                storages[storage._cdata] = storage  # kept alive, so that its address is not reused
            return tensor

        with (
            fake,
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast('cpu', torch.bfloat16, enabled=mixed),
        ):
            output = model(torch.zeros(batch, channels, *size))
        kept.append(sum(storage.nbytes() for storage in storages.values()))
        del output
    return kept[1] - kept[0], max(0, 3 * kept[0] - 2 * kept[1])


class TrainingLength:
    """Length of a training run.

    Args:
        epochs: number of epochs; 0 if the length is given in iterations.
        per_epoch: iterations per epoch; 0 if the number of images is unknown.
        iterations: iterations in total.
    """

    def __init__(self, epochs: int, per_epoch: int, iterations: int) -> None:
        self.epochs, self.per_epoch, self.iterations = epochs, per_epoch, iterations

    @classmethod
    def of(cls, config: Config, images: int, processes: int) -> 'TrainingLength':
        per_epoch = math.ceil(math.ceil(images / processes) / config.train_dataloader.batch_size)
        epochs = config.train_cfg.get('max_epochs') or 0
        return cls(epochs, per_epoch, epochs * per_epoch if epochs else config.train_cfg.max_iters)

    def __str__(self) -> str:
        if not self.epochs:
            passes = f', {self.iterations / self.per_epoch:.1f} epochs' if self.per_epoch else ''
            return f'{self.iterations:,} iterations{passes}'
        if not self.per_epoch:
            return f'{self.epochs} epochs'
        return f'{self.epochs} epochs x {self.per_epoch:,} iterations = {self.iterations:,}'


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences MMEngine's log lines while its parts are built."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        yield
    finally:
        logger.setLevel(level)


def _without_downloads(model: Config) -> dict:
    """The model's config without pretrained weights, which do not affect the summary."""
    model = copy.deepcopy(model)
    if model.get('network', {}).get('pretrained'):
        model.network.pretrained = False
    return model


def _images(config: Config, model: nn.Module) -> tuple[int, str]:
    """Number of training images, 0 if unknown, and a line about them."""
    dataset = config.train_dataloader.dataset
    places = _places_of_images(dataset)
    missing = [f'{place} is not here' for place in places if place.startswith('hfds/') or not _is_here(place)]
    if missing:
        if getattr(model, 'num_classes', 0) == 1000:
            return IMAGENET_IMAGES, f'{IMAGENET_IMAGES:,} images are assumed, as in ImageNet-1k: {missing[0]}'
        return 0, f'unknown: {missing[0]}'
    built = DATASETS.build(copy.deepcopy(dataset))
    resolve_classes(model, training=built)
    return len(built), f'{len(built):,} images{" in " if places else ""}{", ".join(places)}'


def _places_of_images(dataset: dict) -> list[str]:
    """Paths of the images of a dataset and of the datasets it wraps."""
    inner = [*(dataset.get('datasets') or ()), *([dataset.dataset] if dataset.get('dataset') else ())]
    if inner:
        return list(dict.fromkeys(place for one in inner for place in _places_of_images(one)))
    if root := dataset.get('root'):
        return [str(root)]
    root, images = dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img_path') or ''
    place = str(Path(root, images) if not root or _is_here(root) else root)
    return [place] if root or images else []


def _is_here(place: str) -> bool:
    return Path(place.removeprefix('wds/')).exists()


def _learning_rate(config: Config, processes: int, counts: int | None) -> tuple[float, float]:
    """The learning rate of a run after scaling with the batch, and that of the config."""
    rate = _base_rate(config.optim_wrapper.optimizer)
    scale = config.get('auto_scale_lr') or {}
    if counts is not None or not scale.get('enable'):
        return rate, rate
    return rate * processes * config.train_dataloader.batch_size / scale['base_batch_size'], rate


def _base_rate(optimizer: dict) -> float:
    """The learning rate in the config, or the optimizer's default."""
    parameter = nn.Parameter(torch.zeros(1))
    return optimizer.get('lr') or OPTIMIZERS.build({**optimizer, 'params': [parameter]}).defaults.get('lr', 0.0)


def _groups(model: nn.Module, optim_wrapper: dict) -> list[str]:
    """One line per combination of learning-rate multiplier and weight decay."""
    settings = {key: value for key, value in optim_wrapper.items() if key in ('optimizer', 'paramwise_cfg')}
    settings |= {'constructor': optim_wrapper.constructor} if 'constructor' in optim_wrapper else {}
    optimizer = build_optim_wrapper(model, copy.deepcopy(settings)).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    base_rate = _base_rate(optim_wrapper.optimizer)
    groups = defaultdict(list)
    for group in optimizer.param_groups:
        multiplier = round(group['lr'] / base_rate, 6) if base_rate else 1.0
        groups[multiplier, group.get('weight_decay', 0)] += group['params']
    return [
        f'{len(parameters):>5} tensors {sum(p.numel() for p in parameters) / 1e6:8.3f} M  rate x{multiplier:g}, '
        f'decay {decay:g}, such as {names[id(parameters[0])]}'
        for (multiplier, decay), parameters in groups.items()
    ]


def _memory(config: Config, model: nn.Module, processes: int) -> list[str]:
    """Lines about the memory of one process; all but the activations are exact."""
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    gradients = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    hooks = [*(config.get('default_hooks') or {}).values(), *(config.get('custom_hooks') or [])]
    has_ema = any(hook and hook.get('type') in ('EMAHook', 'SteppedEMAHook') for hook in hooks)
    parts = {
        'weights': weights,
        'gradients': gradients,
        'gradient buckets of DDP': gradients if processes > 1 else 0,
        'optimizer': optimizer_state_bytes(model, config.optim_wrapper.optimizer),
        'EMA weights': weights if has_ema else 0,
    }
    lines = [f'{_mib(size)}  {what}' for what, size in parts.items() if size]
    batch, size = config.train_dataloader.batch_size, _input_size(config)
    if size is None:
        return [*lines, f'{_mib(sum(parts.values()))}  in total, without activations: the input size is unknown']
    mixed = config.optim_wrapper.get('type') in ('AmpOptimWrapper', 'SkippingAmpOptimWrapper')
    network = model.model if isinstance(model, TokenLabelClassifier) else model
    try:
        per_image, per_step = activation_bytes(network.train(), size, mixed, _input_channels(config))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).partition('\n')[0]
        raise UserError(
            f'The network cannot take images of {size[0]} x {size[1]} ({reason}): make model and sizes fit.'
        ) from error
    activations = batch * per_image + per_step
    lines.append(
        f'{_mib(activations)}  activations, an estimate: {per_image / 2**20:.1f} MiB for each of {batch} images of '
        f'{size[0]} x {size[1]}, measured here'
    )
    return [
        *lines,
        f'{_mib(sum(parts.values()) + activations)}  in total per process, without the loss and temporary buffers',
    ]


def _input_channels(config: Config) -> int:
    """Channels of an image: the backbone's input channels for segmentation, 3 for pretraining."""
    backbone = config.model.get('backbone') or {}
    return backbone.get('in_chans') or backbone.get('in_channels') or 3


def _input_size(config: Config) -> tuple[int, int] | None:
    """Height and width of a training input in pixels: the transform's size, or the crop size for segmentation."""
    transform = config.train_dataloader.dataset.get('transform') or {}
    size = transform.get('size') or (config.model.get('data_preprocessor') or {}).get('size')
    return (size, size) if isinstance(size, int) else size and tuple(size)


def _mib(size: int) -> str:
    return f'{size / 2**20:>9,.1f} MiB'
