"""Loads an annotator: a timm classifier with its weights, input size, normalisation and class names."""

import difflib
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import get_pretrained_cfg
from torch import nn

from tokenlabel.checkpoints.weights import load_checkpoint, read_checkpoint, state_dict_of
from tokenlabel.errors import UserError, is_out_of_memory
from tokenlabel.files.reading import read_names
from tokenlabel.labels.annotator.dense_classifier import DenseClassifier
from tokenlabel.labels.view_rule import RULES, CenterCrop, Native, ViewRule
from tokenlabel.models.locations import model_name


class Annotator(NamedTuple):
    """A classifier ready to annotate.

    Attributes:
        dense: the classifier.
        size: side of its square input in pixels.
        mean, std: normalisation of its input, per channel, for pixels in [0, 1].
        record: its entry in a label store: name, arguments, digest of the weights, mean and std.
        crop_pct: share of the image that timm evaluates it on, as in `CenterCrop`.
        class_names: names of its classes in order, if its checkpoint records them; else None.
        native_size: side of the input at which timm evaluates it, in pixels.
    """

    dense: DenseClassifier
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    record: dict[str, Any]
    crop_pct: float = 1.0
    class_names: list[str] | None = None
    native_size: int | None = None


def load_annotator(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    ema: bool = False,
    num_classes: int | None = None,
    size: int | None = None,
    model_kwargs: dict[str, Any] | None = None,
) -> Annotator:
    """Creates an annotator by its timm name.

    Args:
        name: as in `timm.create_model`, including this package's models.
        checkpoint: weights; None uses the pretrained weights of `name`, downloaded if needed.
        ema: use the checkpoint's EMA weights.
        num_classes: number of classes; None takes that of the checkpoint or of the pretrained weights.
        size: input side in pixels; None takes timm's evaluation size, rounded up to a multiple of the model's stride.
        model_kwargs: other arguments of the model.

    Raises:
        UserError: the name or an argument is unknown; the weights are unavailable, do not fit or have another number
            of classes; or the model does not take this size.
    """
    _check_name(name)
    model_kwargs = dict(model_kwargs or {})
    names = None
    if checkpoint is not None:
        num_classes, names = _checkpoint_classes(name, checkpoint, ema, num_classes)
    if num_classes is not None:
        model_kwargs['num_classes'] = num_classes
    try:
        model = timm.create_model(name, pretrained=checkpoint is None, **model_kwargs)
    except (TypeError, UserError) as error:
        raise UserError(f'{name} cannot be made with {model_kwargs} ({error}).') from error
    except Exception as error:
        # Hub clients raise errors of many kinds, and a failed download is bad input here, not a defect.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if model_kwargs.keys() - {'num_classes'} and not _is_made_with(name, model_kwargs):
            raise UserError(f'{name} cannot be made with {model_kwargs} ({reason}).') from error
        if checkpoint is not None:
            raise
        raise UserError(f'No pretrained weights for {name} ({reason}): give a file with --checkpoint.') from error
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, ema=ema)
    data = timm.data.resolve_model_data_config(model, use_test_size=True)
    mean, std = tuple(data['mean']), tuple(data['std'])
    record = {'name': name, 'model_kwargs': model_kwargs, 'digest': weights_digest(model), 'mean': mean, 'std': std}
    native, cell = data['input_size'][-1], cell_side(model)
    size = size or model_kwargs.get('img_size') or -(-native // cell) * cell
    built_for = getattr(getattr(model, 'patch_embed', None), 'img_size', None)
    if built_for not in (None, (size, size)) and hasattr(model, 'set_input_size'):
        with _size_errors(name, size):
            model.set_input_size(img_size=(size, size))
    return Annotator(DenseClassifier(model), size, mean, std, record, data['crop_pct'], names, native)


def annotator_view(annotator: Annotator, name: str, crop_pct: float | None = None) -> ViewRule:
    """The view rule of this name for an annotator's input.

    Args:
        annotator: gives the size, the padding colour ('native') and the default `crop_pct` ('center-crop').
        name: a key of `view_rule.RULES`.
        crop_pct: share of the image's shorter side to show, 'center-crop' only.

    Raises:
        UserError: `crop_pct` is given for another rule or is out of range.
    """
    if crop_pct is not None and name != CenterCrop.name:
        raise UserError(f'--crop-pct does not go with --view {name}: leave it out, or give --view {CenterCrop.name}.')
    if name == CenterCrop.name:
        crop_pct = annotator.crop_pct if crop_pct is None else crop_pct
        return CenterCrop(annotator.size, crop_pct)
    if name == Native.name:
        return Native(annotator.size, tuple(round(255 * channel) for channel in annotator.mean))
    return RULES[name](annotator.size)


def class_names(reader: Any, num_classes: int, own: list[str] | None = None) -> list[str] | None:
    """Names of the annotator's classes.

    These are `own`, if given; else the reader's class folders in order, if there are as many; else the synsets of the
    ImageNet variant with this number of classes (timm's ImageNet-1k, 12k, 21k and 22k); else None.
    """
    if own is not None:
        return own
    folders = getattr(reader, 'class_to_idx', {})
    if len(folders) == num_classes:
        return sorted(folders, key=folders.get)
    subset = infer_imagenet_subset({'num_classes': num_classes})
    return None if subset is None else ImageNetInfo(subset).label_names()


def read_class_names(path: str | Path, num_classes: int) -> list[str]:
    """Names of the annotator's classes from a text file, one a line, in the order of its scores.

    Raises:
        UserError: the file cannot be read, has another number of names, or contains a blank name.
    """
    names = read_names(path, 'The list of classes')
    if len(names) != num_classes:
        raise UserError(f'{path} names {len(names)} classes, but the annotator has {num_classes}: give one a line.')
    return names


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and values of a model's state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def cell_side(model: nn.Module) -> int:
    """Stride of a classifier's feature map in pixels, from timm's `feature_info`; 1 if unknown."""
    info = getattr(model, 'feature_info', None)
    return info[-1].get('reduction', 1) if isinstance(info, list) and info else 1


def map_side(dense: DenseClassifier, size: int, device: torch.device | str = 'cpu') -> int:
    """Cells per side S of the annotator's maps for `size` x `size` pixels.

    Raises:
        UserError: the annotator does not take this size, its dense logits are not faithful, or the size is not a
            multiple of its stride, so that its map would not cover the image exactly.
    """
    # Noise, because constant features would pass the check of any head.
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with _size_errors(model_name(dense.model), size):
        side = dense(noise.to(device)).shape[-1]
    cell = cell_side(dense.model)
    if size % cell:
        below, above = size // cell * cell, (size // cell + 1) * cell
        raise UserError(
            f'{model_name(dense.model)} has cells of {cell} pixels, which do not divide {size}: '
            f'choose an image size of {below} or {above}.'
        )
    return side


@contextmanager
def _size_errors(name: str, size: int) -> Iterator[None]:
    """Turns timm's assertion and runtime errors about an unsuitable image size into a `UserError`."""
    try:
        yield
    except (AssertionError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f'{name} does not take images of {size}x{size} pixels ({error}).') from error


def _is_made_with(name: str, model_kwargs: dict[str, Any]) -> bool:
    """Whether a model takes these arguments; True for models on the hub, which cannot be checked offline."""
    try:
        return ':' in name or bool(timm.create_model(name, pretrained=False, **model_kwargs))
    except Exception:
        return False


def _check_name(name: str) -> None:
    if ':' in name or timm.is_model(name):
        return
    close = difflib.get_close_matches(name.partition('.')[0], timm.list_models(), n=3, cutoff=0.5)
    hint = f'did you mean {" or ".join(close)}?' if close else 'timm.list_models() names all there are.'
    raise UserError(f'There is no annotator {name}: {hint}')


def _checkpoint_classes(
    name: str, checkpoint: str | Path, ema: bool, num_classes: int | None
) -> tuple[int | None, list[str] | None]:
    """Number and names of the classes of a checkpoint's classifier; None where the checkpoint does not record them.

    Another number of classes is an error, because the classifier would stay untrained.
    """
    config = None if ':' in name else get_pretrained_cfg(name)
    classifier = getattr(config, 'classifier', None)
    classifier = classifier[0] if isinstance(classifier, tuple) else classifier
    contents = read_checkpoint(checkpoint)
    weight = state_dict_of(contents, ema, checkpoint).get(f'{classifier}.weight')
    if weight is None:
        return num_classes, None
    count = weight.shape[:1].numel()
    if num_classes not in (None, count):
        raise UserError(f'{checkpoint} classifies into {count} classes, not {num_classes}: leave out --num-classes.')
    names = contents.get('tokenlabel', {}).get('class_names')
    return count, names if names and len(names) == count else None
