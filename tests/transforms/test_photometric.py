"""Photometric operations on a batch are those of Pillow, image by image."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP, posterize
from torchvision.transforms import functional as F

from tokenlabel.errors import UserError
from tokenlabel.transforms.image import TrainTransform, rand_augment
from tokenlabel.transforms.photometric import NUMBERS, apply_choices, encode_choices
from tokenlabel.transforms.view import View


def images(count: int = 4, height: int = 40, width: int = 50, seed: int = 0) -> torch.Tensor:
    """Smooth images that use parts of the range of grey levels; the last has a single one."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 5, 6, 3), dtype=np.uint8)
    smooth = [Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC) for pixels in small]
    result = torch.stack([F.pil_to_tensor(image) for image in smooth])
    result[0] = result[0] // 3 + 40
    result[-1] = 77
    return result


def with_pillow(image: torch.Tensor, name: str, argument: float) -> torch.Tensor:
    if name.startswith('Posterize'):
        result = posterize(F.to_pil_image(image), max(1, argument))
    else:
        result = NAME_TO_OP[name](F.to_pil_image(image), *([] if LEVEL_TO_ARG[name] is None else [argument]))
    return F.pil_to_tensor(result)


@pytest.mark.parametrize('name', NUMBERS)
def test_an_operation_is_pillow_s_to_one_grey_level(name):
    random.seed(0)
    batch = images(8)
    level = LEVEL_TO_ARG[name]
    arguments = [level(magnitude, {})[0] if level else 0 for magnitude in (0, 1.5, 4, 5, 6.5, 8, 9, 10)]
    choices = torch.stack([encode_choices([(name, argument)], 1) for argument in arguments])
    ours = apply_choices(batch, choices)
    theirs = torch.stack([with_pillow(*pair) for pair in zip(batch, [name] * 8, arguments, strict=True)])
    difference = (ours.int() - theirs.int()).abs()
    assert ours.dtype == torch.uint8 and difference.max() <= 1
    assert difference.float().mean() < 0.02
    assert not torch.equal(ours, batch)


@settings(max_examples=30)
@given(st.lists(st.lists(st.sampled_from(list(NUMBERS)), max_size=3), min_size=3, max_size=3), st.integers(0, 99))
def test_each_image_gets_its_own_operations_in_their_order(names, seed):
    batch = images(3, seed=seed)
    chosen = [[(name, 2 if 'Post' in name else 100 if 'Solar' in name else 0.6) for name in row] for row in names]
    together = apply_choices(batch, torch.stack([encode_choices(row, 3) for row in chosen]))
    for image, row, result in zip(batch, chosen, together, strict=True):
        for choice in row:
            image = apply_choices(image[None], encode_choices([choice], 1)[None])[0]
        assert torch.equal(result, image)


def test_a_batch_without_choices_stays_as_it_is():
    batch = images()
    assert torch.equal(apply_choices(batch, torch.zeros(4, 2, 2)), batch)


def test_deferred_operations_are_those_that_would_have_been_applied():
    """Where no geometric operation lies among them, order and fill do not matter: the result is the same."""
    names = ['Invert', 'SolarizeAdd', 'ColorIncreasing', 'ContrastIncreasing', 'PosterizeIncreasing']
    config = 'rand-m9-n3-mstd0.5-p0.7-inc1'
    image = F.to_pil_image(images()[1])
    deferring, direct = (rand_augment(config, 40, transforms=names, defer_photometric=flag) for flag in (True, False))
    for seed in range(20):
        random.seed(seed)
        np.random.seed(seed)
        pixels, _, *chosen = deferring((image, View.identity()))
        assert pixels is image
        random.seed(seed)
        np.random.seed(seed)
        expected, _ = direct((image, View.identity()))
        ours = apply_choices(F.pil_to_tensor(image)[None], encode_choices(chosen, 3)[None])[0]
        difference = (ours.int() - F.pil_to_tensor(expected).int()).abs()
        assert difference.max() <= 4  # each operation may stretch what the one before it was off by


def test_geometric_operations_stay_with_the_loader():
    deferring = rand_augment('rand-m9-n4-p1.0', 40, transforms=['Invert', 'ShearX'], defer_photometric=True)
    image = F.to_pil_image(images()[1])
    for seed in range(8):
        np.random.seed(seed)
        pixels, _, *chosen = deferring((image, View.identity()))
        assert {name for name, _ in chosen} <= {'Invert'}
        assert (pixels is image) == (len(chosen) == 4)


def test_what_the_loader_draws_is_the_same_with_deferred_operations_and_without():
    image = F.to_pil_image(images(2, 90, 70)[0])
    views = []
    for flag in (True, False):
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)
        views.append([TrainTransform(32, defer_photometric=flag)(image)[1].matrix for _ in range(20)])
    np.testing.assert_array_equal(*views)


def test_a_transform_that_defers_returns_as_many_rows_as_the_policy_has_operations():
    transform = TrainTransform(32, auto_augment='rand-m9-n3-mstd0.5-inc1', defer_photometric=True)
    pixels, _, choices = transform(F.to_pil_image(images()[1]))
    assert pixels.dtype == torch.uint8 and choices.shape == (3, 2) and choices.dtype == torch.float32


def test_an_operation_that_cannot_be_deferred_is_refused():
    with pytest.raises(UserError, match='GaussianBlur, which cannot be deferred'):
        TrainTransform(32, auto_augment='rand-m9-t3a', defer_photometric=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_a_gpu_operations_are_the_same_and_the_host_waits_for_none():
    batch = images(len(NUMBERS))
    arguments = [2 if 'Post' in name else 100 if 'Solar' in name else 0.6 for name in NUMBERS]
    choices = torch.stack([encode_choices([choice], 1) for choice in zip(NUMBERS, arguments, strict=True)])
    on_device = batch.cuda()
    torch.cuda.set_sync_debug_mode('error')
    try:
        ours = apply_choices(on_device, choices.pin_memory())
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert (ours.cpu().int() - apply_choices(batch, choices).int()).abs().max() <= 1
