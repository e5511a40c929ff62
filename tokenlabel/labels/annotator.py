"""A machine annotator: any image classifier of timm, read out at every location of its feature map."""

import difflib
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tokenlabel.errors import UserError
from tokenlabel.labels.store import LabelWriter, encode_keys, image_keys
from tokenlabel.models.checkpoint import load_checkpoint, read_checkpoint, state_dict_of

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class DenseClassifier(nn.Module):
    """Logits of a classifier at every location: what its head says when one location is all there is to pool.

    timm's classifiers are `forward_head(forward_features(images))`. The head pools the locations and then works on one
    vector, so each location is given to it as a feature map of its own, of one cell. Normalisation, hidden layers and
    convolutions after the pooling are thereby applied per location. In a token model the patch token also takes the
    places of the class token and of other prefix tokens. Where the head is linear after average pooling, the mean of
    the dense logits is the model's own output.

    A token head (LV-ViT, VOLO) answers for the tokens where the model's score uses it.

    The first call checks on its first image that this is faithful, and refuses the model otherwise: the head must treat
    all locations alike and have nothing but the feature map to go by.

    Args:
        model: a timm classifier; put in evaluation mode.

    Raises:
        UserError: the model has no head, or no faithful dense form; the message says why.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for method in ('forward_features', 'forward_head'):
            if not hasattr(model, method):
                raise _refusal(model, f'it has no {method}')
        if not getattr(model, 'num_classes', 0):
            raise _refusal(model, 'it has no classes')
        self.model = model.eval()
        self.num_classes: int = model.num_classes
        self._checked = False

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C, S, S] float32 of square `images` [B, 3, H, H]; the head runs in float32 also under autocast."""
        if images.shape[-1] != images.shape[-2]:
            raise ValueError(f'Images of {images.shape[-1]}x{images.shape[-2]} pixels; the annotator takes squares.')
        features = self.model.forward_features(images)
        if not isinstance(features, Tensor):
            raise _refusal(self.model, 'its features are not one feature map')
        with torch.autocast(images.device.type, enabled=False):
            features = features.float()
            layout = _layout(self.model, features)
            if not self._checked:
                self._check(images[:1])
                self._checked = True
            batch, side = len(images), layout.side
            token_logits = _token_logits(self.model, features)
            if token_logits is None:
                cells = layout.cells(features).flatten(0, 1)
                token_logits = self.model.forward_head(layout.as_maps(cells)).unflatten(0, (batch, side * side))
            return token_logits.transpose(1, 2).unflatten(2, (side, side))

    def _check(self, image: Tensor) -> None:
        """Refuse a model whose head is not a function of the pooled features; tried on one image, in float32."""
        features = self.model.forward_features(image)
        if _token_logits(self.model, features) is not None:
            return
        layout = _layout(self.model, features)
        own = self.model.forward_head(features)
        if own.shape != (1, self.num_classes):
            raise _refusal(self.model, 'its head does not give one vector of class scores')
        if not _close(own, self.model(image)):
            raise _refusal(self.model, 'its output is more than its head applied to its features')
        cells = layout.cells(features)
        backwards = layout.with_cells(features, cells.flip(1))
        if not _close(own, self.model.forward_head(backwards)):
            raise _refusal(self.model, 'its head tells locations apart')
        one = layout.as_maps(cells[:, 0])
        everywhere = layout.as_maps(cells[:, 0], layout.side)
        if not _close(self.model.forward_head(one), self.model.forward_head(everywhere)):
            raise _refusal(self.model, 'its head depends on the number of locations')


class SquashedImages(Dataset):
    """Images of a timm reader, each squeezed whole to a square (bicubic).

    Orientation tags (EXIF) are ignored, as is usual for ImageNet: training must read the pixels in the same way.

    Args:
        reader: timm reader.
        rows: positions of the images in the reader, in the order they are to be numbered here.
        size: side of the square in pixels.

    A sample is `(uint8 [3, size, size], (width, height) of the original, None)`, or with an error message in the last
    place when the image cannot be read.
    """

    def __init__(self, reader: Any, rows: np.ndarray, size: int) -> None:
        self.reader, self.rows, self.size = reader, rows, size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[int, int], str | None]:
        row = int(self.rows[index])
        try:
            stream, _ = self.reader[row]
            with stream, Image.open(stream) as image:
                size = image.size
                squashed = image.convert('RGB').resize((self.size, self.size), Image.Resampling.BICUBIC)
        except Exception as error:
            # Raised in a loader's worker, it would lose its sentence in a traceback. Pillow raises nearly anything.
            nothing = torch.zeros(3, self.size, self.size, dtype=torch.uint8)
            return nothing, (0, 0), f'{self.reader.filename(row, absolute=True)} ({error or type(error).__name__})'
        return torch.from_numpy(np.array(squashed)).permute(2, 0, 1), size, None


class Annotator(NamedTuple):
    """A classifier ready to annotate.

    Attributes:
        dense: the classifier.
        size: side of its square input in pixels.
        mean, std: of its input, per channel, for pixels in [0, 1].
        record: what identifies it in a label store: name, arguments, digest of the weights, mean and std.
    """

    dense: DenseClassifier
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    record: dict[str, Any]


def load_annotator(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    ema: bool = False,
    num_classes: int | None = None,
    size: int | None = None,
    model_kwargs: dict[str, Any] | None = None,
) -> Annotator:
    """Make an annotator from a timm name.

    Args:
        name: as in `timm.create_model`, our own names included.
        checkpoint: weights; without one the pretrained weights of `name` are used, downloaded if need be.
        ema: take the checkpoint's EMA weights.
        num_classes: None takes the checkpoint's, or those of the pretrained weights.
        size: input side in pixels; None takes the size at which timm evaluates the model.
        model_kwargs: further arguments of the model.

    Raises:
        UserError: an unknown name or argument, weights that are not to be had, that do not fit or that have another
            number of classes, or a size that the model does not take.
    """
    _check_name(name)
    model_kwargs = dict(model_kwargs or {})
    if checkpoint is not None:
        num_classes = _checkpoint_classes(name, checkpoint, ema, num_classes)
    if num_classes is not None:
        model_kwargs['num_classes'] = num_classes
    try:
        model = timm.create_model(name, pretrained=checkpoint is None, **model_kwargs)
    except (TypeError, UserError) as error:
        raise UserError(f'{name} cannot be made with {model_kwargs} ({error}).') from error
    except Exception as error:
        # Hub clients raise errors of many kinds, and a failed download is bad input here, not a defect.
        if checkpoint is not None:
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f'No pretrained weights for {name} ({reason}): give a file with --checkpoint.') from error
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, ema=ema)
    data = timm.data.resolve_model_data_config(model, use_test_size=True)
    mean, std = tuple(data['mean']), tuple(data['std'])
    record = {'name': name, 'model_kwargs': model_kwargs, 'digest': weights_digest(model), 'mean': mean, 'std': std}
    size = size or model_kwargs.get('img_size') or data['input_size'][-1]
    built_for = getattr(getattr(model, 'patch_embed', None), 'img_size', None)
    if built_for not in (None, (size, size)) and hasattr(model, 'set_input_size'):
        with _size_errors(name, size):
            model.set_input_size(img_size=(size, size))
    return Annotator(DenseClassifier(model), size, mean, std, record)


def class_names(reader: Any, num_classes: int) -> list[str] | None:
    """Names of the annotator's classes: the reader's class folders in order, if there are as many; else None."""
    folders = getattr(reader, 'class_to_idx', {})
    return sorted(folders, key=folders.get) if len(folders) == num_classes else None


def annotate(
    dense: DenseClassifier,
    reader: Any,
    writer: LabelWriter,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    device: torch.device | str = 'cpu',
    precision: str = 'fp32',
    workers: int = 0,
    on_batch: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the maps of all images that the writer still lacks. The caller finalises.

    Args:
        dense: annotator, on `device`.
        reader: timm reader whose images are the writer's.
        writer: store to fill; its view rule gives the input size.
        mean, std: of the annotator's input, in [0, 1].
        device: where the annotator runs.
        precision: a key of `PRECISIONS`; other than fp32 it is autocast.
        workers: processes that decode images; 0 decodes here.
        on_batch: told the number of images each time a batch is on disk.

    Raises:
        UserError: an image that cannot be read (named), or scores that are not finite.
    """
    device = torch.device(device)
    rows = np.argsort(encode_keys(image_keys(reader)), kind='stable')
    images = SquashedImages(reader, rows, writer.meta['view']['size'])
    batches = writer.batches()
    loader = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=min(workers, len(batches)),
        collate_fn=_collate,
        pin_memory=device.type == 'cuda',
    )
    mean_255 = torch.tensor(mean, device=device).view(3, 1, 1) * 255
    std_255 = torch.tensor(std, device=device).view(3, 1, 1) * 255
    for batch, (pixels, sizes, failures) in zip(batches, loader, strict=True):
        if failures:
            raise UserError(f'Cannot read image {failures[0]}: replace or remove it.')
        inputs = (pixels.to(device, non_blocking=True) - mean_255) / std_255
        with _autocast(device, precision):
            logits = dense(inputs)
        scores, classes = logits.topk(writer.meta['k'], dim=1)
        writer.write(batch, scores.cpu().numpy(), classes.cpu().numpy(), sizes)
        on_batch(len(batch))


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of everything a model has learned."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def map_side(dense: DenseClassifier, size: int, device: torch.device | str = 'cpu') -> int:
    """Cells per side S of the annotator's maps for `size` x `size` pixels.

    Raises:
        UserError: the annotator does not take this size, has no faithful dense form, or its map would not cover the
            image exactly, because its cells do not divide the size.
    """
    # Noise, so that the check of the head is not fooled by features that are the same everywhere.
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with _size_errors(_name(dense.model), size):
        side = dense(noise.to(device)).shape[-1]
    info = getattr(dense.model, 'feature_info', None)
    cell = info[-1].get('reduction', 1) if isinstance(info, list) and info else 1
    if size % cell:
        below, above = size // cell * cell, (size // cell + 1) * cell
        raise UserError(
            f'{_name(dense.model)} has cells of {cell} pixels, which do not divide {size}: '
            f'choose an image size of {below} or {above}.'
        )
    return side


class _Layout(NamedTuple):
    """How locations are laid out in features: `kind` NCHW, NHWC or tokens; `side` cells each way; prefix tokens."""

    kind: str
    side: int
    num_prefix: int

    def cells(self, features: Tensor) -> Tensor:
        """Vectors [B, S * S, D] of the locations, row by row."""
        if self.kind == 'tokens':
            return features[:, self.num_prefix :]
        if self.kind == 'NHWC':
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)

    def with_cells(self, features: Tensor, cells: Tensor) -> Tensor:
        """`features` with other vectors at the locations."""
        if self.kind == 'tokens':
            return torch.cat([features[:, : self.num_prefix], cells], dim=1)
        if self.kind == 'NHWC':
            return cells.reshape(features.shape)
        return cells.transpose(1, 2).reshape(features.shape)

    def as_maps(self, vectors: Tensor, side: int = 1) -> Tensor:
        """Features of `len(vectors)` images that consist of one vector [M, D] throughout, `side` cells each way."""
        if self.kind == 'tokens':
            return vectors[:, None].expand(-1, self.num_prefix + side * side, -1)
        if self.kind == 'NHWC':
            return vectors[:, None, None].expand(-1, side, side, -1)
        return vectors[:, :, None, None].expand(-1, -1, side, side)


def _layout(model: nn.Module, features: Tensor) -> _Layout:
    if features.ndim == 4:
        kind = 'NHWC' if getattr(model, 'output_fmt', 'NCHW') == 'NHWC' else 'NCHW'
        rows, columns = features.shape[1:3] if kind == 'NHWC' else features.shape[2:]
        if rows != columns:
            raise _refusal(model, f'its feature map is {rows}x{columns} for a square image')
        return _Layout(kind, rows, 0)
    if features.ndim != 3:
        raise _refusal(model, 'its features have no spatial layout')
    cls_token = getattr(model, 'cls_token', None)
    num_prefix = getattr(model, 'num_prefix_tokens', 0 if cls_token is None else cls_token.shape[1])
    num_patches = features.shape[1] - num_prefix
    side = math.isqrt(max(0, num_patches))
    if side == 0 or side * side != num_patches:
        raise _refusal(model, f'its {num_patches} patch tokens are not a square grid')
    return _Layout('tokens', side, num_prefix)


def _token_logits(model: nn.Module, features: Tensor) -> Tensor | None:
    """Logits [B, N, C] of a token head that takes part in the model's score; None where there is none."""
    if getattr(model, 'token_score_weight', 1.0) == 0 or not isinstance(getattr(model, 'aux_head', None), nn.Linear):
        return None
    if hasattr(model, 'token_logits'):
        return model.token_logits(features)
    return model.aux_head(features[:, 1:])


def _refusal(model: nn.Module, reason: str) -> UserError:
    return UserError(f'{_name(model)} cannot annotate: {reason}, so there are no faithful scores per location.')


def _name(model: nn.Module) -> str:
    return (getattr(model, 'pretrained_cfg', None) or {}).get('architecture') or type(model).__name__


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-3 * one.abs().max().clamp(min=1e-6))


def _collate(samples: list) -> tuple[Tensor, np.ndarray, list[str]]:
    pixels, sizes, failures = zip(*samples, strict=True)
    return torch.stack(pixels), np.array(sizes, dtype=np.int64), [failure for failure in failures if failure]


@contextmanager
def _autocast(device: torch.device, precision: str) -> Iterator[None]:
    with torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != 'fp32'):
        yield


@contextmanager
def _size_errors(name: str, size: int) -> Iterator[None]:
    """timm states by an assertion that a size does not suit a model; other mismatches surface as runtime errors."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError, UserError) as error:
        raise UserError(f'{name} does not take images of {size}x{size} pixels ({error}).') from error


def _check_name(name: str) -> None:
    if ':' in name or timm.is_model(name):
        return
    close = difflib.get_close_matches(name.partition('.')[0], timm.list_models(), n=3, cutoff=0.5)
    hint = f'did you mean {" or ".join(close)}?' if close else 'timm.list_models() names all there are.'
    raise UserError(f'There is no annotator {name}: {hint}')


def _checkpoint_classes(name: str, checkpoint: str | Path, ema: bool, num_classes: int | None) -> int | None:
    """Classes of a checkpoint's classifier. A classifier of other classes would be left untrained, so it is refused."""
    config = None if ':' in name else get_pretrained_cfg(name)
    classifier = getattr(config, 'classifier', None)
    classifier = classifier[0] if isinstance(classifier, tuple) else classifier
    weight = state_dict_of(read_checkpoint(checkpoint), ema).get(f'{classifier}.weight')
    if weight is None:
        return num_classes
    if num_classes not in (None, len(weight)):
        raise UserError(
            f'{checkpoint} classifies into {len(weight)} classes, not {num_classes}: leave out --num-classes.'
        )
    return len(weight)
