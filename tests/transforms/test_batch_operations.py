"""RandAugment's operations on a batch are those of timm by Pillow, image by image."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP, posterize
from torch import Tensor
from torchvision.transforms import functional as F

from tokenlabel.errors import UserError
from tokenlabel.transforms.batch_operations import OPERATIONS, apply_operations, encode_operations
from tokenlabel.transforms.image import TrainTransform, rand_augment
from tokenlabel.transforms.view import View

GEOMETRIC = ['ShearX', 'ShearY', 'Rotate', 'TranslateXRel', 'TranslateYRel', 'TranslateX', 'TranslateY']
PHOTOMETRIC = list(OPERATIONS)[2:]
ARGUMENTS = {name: 2 if 'Post' in name else 100 if 'Solar' in name else 0.6 for name in PHOTOMETRIC}
ARGUMENTS |= {'Bilinear': [[0.9, 0.2, 3.3], [0.1, 1.1, -2.1]], 'Bicubic': [[1, -0.2, 3.3], [0.1, 1, -2.1]]}


def images(count: int = 4, height: int = 40, width: int = 50, seed: int = 0) -> Tensor:
    """Smooth images that use parts of the range of grey levels; the last has a single one."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 5, 6, 3), dtype=np.uint8)
    smooth = [Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC) for pixels in small]
    result = torch.stack([F.pil_to_tensor(image) for image in smooth])
    result[0] = result[0] // 3 + 40
    result[-1] = 77
    return result


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def with_pillow(image: Tensor, name: str, argument: float) -> Tensor:
    if name.startswith('Posterize'):
        result = posterize(F.to_pil_image(image), max(1, argument))
    else:
        result = NAME_TO_OP[name](F.to_pil_image(image), *([] if LEVEL_TO_ARG[name] is None else [argument]))
    return F.pil_to_tensor(result)


def both_ways(augment, deferring, image: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """An image augmented by Pillow, and on its own in a batch; Views are the same."""
    seed_all(seed)
    expected, view = augment((F.to_pil_image(image), View.identity()))
    seed_all(seed)
    untouched, same_view, *chosen = deferring((F.to_pil_image(image), View.identity()))
    assert torch.equal(F.pil_to_tensor(untouched), image)
    np.testing.assert_array_equal(view.matrix, same_view.matrix)
    operations = encode_operations(chosen, deferring.num_layers)
    return F.pil_to_tensor(expected), apply_operations(image[None], operations[None])[0]


@pytest.mark.parametrize('name', PHOTOMETRIC)
def test_a_photometric_operation_is_pillow_s_to_one_grey_level(name):
    random.seed(0)
    batch = images(8)
    level = LEVEL_TO_ARG[name]
    arguments = [level(magnitude, {})[0] if level else 0 for magnitude in (0, 1.5, 4, 5, 6.5, 8, 9, 10)]
    operations = torch.stack([encode_operations([(name, argument)], 1) for argument in arguments])
    ours = apply_operations(batch, operations)
    theirs = torch.stack([with_pillow(*pair) for pair in zip(batch, [name] * 8, arguments, strict=True)])
    difference = (ours.int() - theirs.int()).abs()
    assert ours.dtype == torch.uint8 and difference.max() <= 1
    assert difference.float().mean() < 0.02
    assert not torch.equal(ours, batch)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('name', GEOMETRIC)
def test_a_geometric_operation_is_pillow_s_to_one_grey_level(name, interpolation):
    pair = [rand_augment('rand-m9-n1-p1.0-mstd2', 40, interpolation, [name], defer=defer) for defer in (False, True)]
    for seed in range(6):
        theirs, ours = both_ways(*pair, images(seed=seed)[1], seed)
        difference = (ours.int() - theirs.int()).abs()
        assert difference.max() <= 1 and difference.float().mean() < 0.02
        assert not torch.equal(ours, images(seed=seed)[1])


@pytest.mark.parametrize('config', ['rand-m9-mstd0.5-inc1', 'rand-n3-m9-mstd0.5-inc1', 'rand-m9-p1.0-mstd101-tweights'])
def test_a_policy_is_the_same_in_the_loader_and_on_the_batch(config):
    pair = [rand_augment(config, 40, defer=defer) for defer in (False, True)]
    for seed in range(40):
        theirs, ours = both_ways(*pair, images(seed=seed)[1], seed)
        difference = (ours.int() - theirs.int()).abs().float()
        assert difference.mean() < 0.5  # an operation may stretch, or let jump, what the one before it was off by
        assert difference.median() == 0


@settings(max_examples=30)
@given(st.lists(st.lists(st.sampled_from(list(OPERATIONS)), max_size=3), min_size=3, max_size=3), st.integers(0, 99))
def test_each_image_gets_its_own_operations_in_their_order(names, seed):
    batch = images(3, seed=seed)
    chosen = [[(name, ARGUMENTS[name]) for name in row] for row in names]
    together = apply_operations(batch, torch.stack([encode_operations(row, 3) for row in chosen]))
    for image, row, result in zip(batch, chosen, together, strict=True):
        for choice in row:
            image = apply_operations(image[None], encode_operations([choice], 1)[None])[0]
        assert torch.equal(result, image)


def test_a_batch_without_operations_stays_as_it_is():
    batch = images()
    assert torch.equal(apply_operations(batch, torch.zeros(4, 2, 7, dtype=torch.float64)), batch)


def test_what_the_loader_draws_is_the_same_with_deferred_operations_and_without():
    image = F.to_pil_image(images(2, 90, 70)[0])
    views = []
    for defer in (True, False):
        seed_all(7)
        views.append([TrainTransform(32, defer_rand_augment=defer)(image)[1].matrix for _ in range(20)])
    np.testing.assert_array_equal(*views)


def test_a_transform_that_defers_returns_as_many_rows_as_the_policy_has_operations():
    transform = TrainTransform(32, auto_augment='rand-m9-n3-mstd0.5-inc1', defer_rand_augment=True)
    pixels, _, operations = transform(F.to_pil_image(images()[1]))
    assert pixels.dtype == torch.uint8 and operations.shape == (3, 7)


def test_an_operation_that_cannot_be_deferred_is_refused():
    with pytest.raises(UserError, match='GaussianBlur, which cannot be deferred'):
        TrainTransform(32, auto_augment='rand-m9-t3a', defer_rand_augment=True)


def test_an_interpolation_that_cannot_be_deferred_is_refused():
    with pytest.raises(UserError, match="'lanczos' is not known on the device"):
        TrainTransform(32, interpolation='lanczos', defer_rand_augment=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_a_gpu_operations_are_the_same_and_the_host_waits_for_none():
    batch = images(len(OPERATIONS))
    operations = torch.stack([encode_operations([choice], 1) for choice in ARGUMENTS.items()])
    on_device = batch.cuda()
    torch.cuda.set_sync_debug_mode('error')
    try:
        ours = apply_operations(on_device, operations.pin_memory())
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert (ours.cpu().int() - apply_operations(batch, operations).int()).abs().max() <= 1
