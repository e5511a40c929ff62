"""Augmentations keep the View in register with the pixels, and give the very pixels of timm."""

import io
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import maximum_filter
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP, posterize, rand_augment_transform
from timm.data.transforms_factory import transforms_imagenet_eval, transforms_imagenet_train
from torchvision.transforms import InterpolationMode

from tokenlabel.errors import UserError
from tokenlabel.image_files.reading import open_image
from tokenlabel.image_files.unreadable import UnreadableImage
from tokenlabel.transforms.image import (
    EvalTransform,
    TrainTransform,
    draft_crop,
    horizontal_flip,
    rand_augment,
    resized_crop,
)
from tokenlabel.transforms.view import View

RECIPE = 'rand-m9-mstd0.5-inc1'
GEOMETRIC = ['ShearX', 'ShearY', 'Rotate', 'TranslateXRel', 'TranslateYRel', 'TranslateX', 'TranslateY']

seeds = st.integers(0, 2**31)


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def photo(width: int = 61, height: int = 47, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def coarse_photo(width: int, height: int) -> Image.Image:
    """Without details that are smaller than 32 pixels."""
    return photo(width // 8, height // 8).resize((width, height), Image.Resampling.BICUBIC)


def coordinate_images(width: int, height: int) -> list[Image.Image]:
    """Two images whose pixels hold the x and the y of their own centres, in pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    return [Image.fromarray(x), Image.fromarray(y)]


def seen_positions(view: View, width: int, height: int, size: tuple[int, int]) -> np.ndarray:
    """Source position in pixels of each pixel of an input of `size` (height, width), [H, W, 2]."""
    v, u = np.mgrid[: size[0], : size[1]] + 0.5
    return view.apply(np.stack([u / size[1], v / size[0]], -1)) * (width, height)


class TestViewOfPixels:
    """The View says where each pixel of the result comes from, to half a pixel."""

    @settings(max_examples=60)
    @given(st.data(), st.integers(40, 90), st.integers(40, 90), st.integers(32, 64), st.integers(32, 64), seeds)
    def test_crop_flip_and_rand_augment(self, data, width, height, out_height, out_width, seed):
        crop_width, crop_height = data.draw(st.integers(24, width)), data.draw(st.integers(24, height))
        left, top = data.draw(st.integers(0, width - crop_width)), data.draw(st.integers(0, height - crop_height))
        flip = data.draw(st.booleans())
        augment = rand_augment('rand-m9-mstd0.5-p1.0', min(out_height, out_width), transforms=GEOMETRIC)
        for op in augment.ops:
            op.kwargs['fillcolor'] = float('nan')

        def transform(image: Image.Image) -> tuple[np.ndarray, View]:
            size = (out_height, out_width)
            bilinear = TrainTransform(32).interpolations[0]
            viewed = resized_crop(image, View.identity(), top, left, crop_height, crop_width, size, bilinear)
            if flip:
                viewed = horizontal_flip(*viewed)
            seed_all(seed)
            image, view = augment(viewed)
            return np.asarray(image), view

        (x, view), (y, same_view) = (transform(image) for image in coordinate_images(width, height))

        assert np.array_equal(view.matrix, same_view.matrix)
        expected = seen_positions(view, width, height, (out_height, out_width))
        pixel = np.maximum(1, (crop_width / out_width, crop_height / out_height))
        # Interpolation knows nothing beyond the borders: pixels that were close to one, or to the fill, are left out.
        inside = (expected >= (left, top) + 3 * pixel) & (
            expected <= (left + crop_width, top + crop_height) - 3 * pixel
        )
        clean = ~maximum_filter(np.isnan(x) | np.isnan(y), 5) & inside.all(-1)
        error = np.abs(np.stack([x, y], -1) - expected) / pixel
        assert error[clean].max(initial=0) < 0.5

    @pytest.mark.parametrize('name', GEOMETRIC)
    def test_each_operation_moves_the_view_as_it_moves_the_pixels(self, name):
        augment = rand_augment('rand-m9-n1-p1.0', 64, transforms=[name])
        augment.ops[0].kwargs['fillcolor'] = float('nan')
        positions = []
        for image in coordinate_images(64, 48):
            seed_all(5)
            image, view = augment((image, View.identity()))
            positions.append(np.asarray(image))
        error = np.abs(np.stack(positions, -1) - seen_positions(view, 64, 48, (48, 64)))
        seen = ~maximum_filter(np.isnan(error).any(-1), 3)

        assert not np.allclose(view.matrix, View.identity().matrix, atol=0.05)
        assert seen.mean() > 0.3
        assert error[seen].max() < 0.5

    def test_photometric_operations_leave_the_view_alone(self):
        augment = rand_augment('rand-m9-n4-p1.0-inc1', 64, transforms=['Invert', 'Equalize', 'ColorIncreasing'])
        image, view = augment((photo(), View.flip()))

        assert np.array_equal(view.matrix, View.flip().matrix)
        assert image.size == photo().size

    @settings(max_examples=20)
    @given(st.integers(20, 90), st.integers(20, 90), st.sampled_from([32, (32, 24), (24, 40)]), st.floats(0.5, 1))
    def test_evaluation_crop(self, width, height, size, crop_pct):
        """Here in 8 bits: 2.5 grey levels per pixel."""
        x, y = (
            Image.fromarray((np.asarray(image) * 2.5).round().astype(np.uint8)).convert('RGB')
            for image in coordinate_images(width, height)
        )
        transform = EvalTransform(size, crop_pct, 'bilinear')
        (x, view), (y, _) = transform(x), transform(y)

        seen = np.stack([x[0].numpy(), y[0].numpy()], -1) / 2.5
        expected = seen_positions(view, width, height, transform.size)
        pixel = np.maximum(1, np.diag(view.matrix[:, :2]) * (width, height) / transform.size[::-1])
        assert (np.abs(seen - expected) / pixel).max() < 0.5 + 0.5 / 2.5


@pytest.fixture
def one_bit_at_least(monkeypatch):
    """timm posterises to 0 bits at its strongest level, which current Pillow refuses."""
    for name in ('Posterize', 'PosterizeIncreasing'):
        monkeypatch.setitem(NAME_TO_OP, name, lambda image, bits, **kwargs: posterize(image, max(1, bits)))


@pytest.mark.usefixtures('one_bit_at_least')
class TestPixelsOfTimm:
    """For the same seeds, the pixels are those of timm's transforms."""

    @pytest.mark.parametrize(
        'config', [RECIPE, 'rand-n3-m9-mstd0.5-inc1', 'rand-m5-n2-p0.8', 'rand-m9-mstd101-tweights']
    )
    def test_rand_augment(self, config):
        ours = rand_augment(config, 48)
        theirs = rand_augment_transform(config, {'translate_const': int(48 * 0.45), 'img_mean': (124, 116, 104)})
        for seed in range(40):
            seed_all(seed)
            mine, _ = ours((photo(), View.identity()))
            seed_all(seed)
            assert np.array_equal(mine, theirs(photo()))

    @pytest.mark.parametrize('size', [32, (32, 48)])
    @pytest.mark.parametrize('interpolation', ['random', 'bilinear'])
    @pytest.mark.parametrize('config', [RECIPE, None])
    def test_training(self, size, interpolation, config):
        ours = TrainTransform(size, auto_augment=config, interpolation=interpolation)
        theirs = transforms_imagenet_train(
            size, auto_augment=config, interpolation=interpolation, color_jitter=None, normalize=False
        )
        for seed in range(20):
            seed_all(seed)
            mine, _ = ours(photo())
            seed_all(seed)
            assert torch.equal(mine, theirs(photo()))

    @pytest.mark.parametrize('size', [32, (32, 24), (24, 32)])
    @pytest.mark.parametrize('crop_pct', [0.9, 1.0, 0.7])
    @pytest.mark.parametrize('shape', [(61, 47), (40, 77), (20, 20), (33, 32)])
    def test_evaluation(self, size, crop_pct, shape):
        ours = EvalTransform(size, crop_pct)
        theirs = transforms_imagenet_eval(size, crop_pct, interpolation='bicubic', normalize=False)
        assert torch.equal(ours(photo(*shape))[0], theirs(photo(*shape)))


def test_evaluation_view_is_exact():
    """300x200 becomes 90x60, of which the middle 54x54 is kept: a tenth of the height and a fifth of the width go."""
    _, view = EvalTransform(54, crop_pct=0.9)(photo(300, 200))

    np.testing.assert_allclose(view.matrix, View.crop(0.2, 0.05, 0.6, 0.9).matrix)


def test_training_result_has_the_asked_size_and_type():
    image, view = TrainTransform((32, 48))(photo())

    assert image.shape == (3, 32, 48)
    assert image.dtype == torch.uint8
    assert isinstance(view, View)


@pytest.mark.parametrize('config', ['rand-m10-p1.0-inc1', 'rand-m0-p1.0'])
def test_posterising_to_no_bits_keeps_one(config):
    augment = rand_augment(config, 32, transforms=['PosterizeIncreasing' if 'inc' in config else 'Posterize'])
    image, _ = augment((photo(), View.identity()))

    assert set(np.unique(image)) == {0, 128}


def test_color_jitter_changes_the_pixels_alone():
    plain, jittered = (TrainTransform(32, auto_augment=None, color_jitter=strength) for strength in (None, 0.4))
    seed_all(3)
    image, view = plain(photo())
    seed_all(3)
    other_image, other_view = jittered(photo())

    assert not torch.equal(image, other_image)
    assert np.array_equal(view.matrix, other_view.matrix)


@pytest.mark.parametrize('config', ['original', 'augmix-m3', 'rand-9', 'rand-m9-mst0.5', 'rand-m9.5', 'randm9'])
def test_another_policy_than_rand_augment_is_refused(config):
    with pytest.raises(UserError, match='not a RandAugment policy'):
        TrainTransform(32, auto_augment=config)


def test_an_operation_of_unknown_geometry_is_refused(monkeypatch):
    monkeypatch.setitem(NAME_TO_OP, 'Swirl', lambda image, **kwargs: image)
    monkeypatch.setitem(LEVEL_TO_ARG, 'Swirl', None)
    with pytest.raises(UserError, match='Swirl'):
        rand_augment('rand-m9', 32, transforms=['Swirl'])


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(UserError, match='bicubik'):
        EvalTransform(32, interpolation='bicubik')


@pytest.mark.parametrize('crop_pct', [0, 1.2])
def test_a_crop_share_outside_0_to_1_is_refused(crop_pct):
    with pytest.raises(UserError, match='crop_pct'):
        EvalTransform(32, crop_pct)


def test_an_image_too_thin_to_be_resized_is_refused():
    with pytest.raises(UnreadableImage, match='60000 x 1 pixels are too thin'):
        EvalTransform(224)(Image.new('RGB', (60000, 1)))


class TestDraft:
    """JPEG files decoded at a fraction of their size, for crops that stay at least as large as the result."""

    @staticmethod
    def jpeg(image: Image.Image, **options) -> Image.Image:
        """As it comes from a file, not decoded yet."""
        stream = io.BytesIO()
        image.save(stream, 'JPEG', quality=95, **options)
        return open_image(stream)

    def crop(self, image, box, size, mode=InterpolationMode.BILINEAR) -> tuple[np.ndarray, View]:
        left, top, width, height = box
        pixels, view = draft_crop(image, View.identity(), top, left, height, width, size, mode)
        return pixels.permute(1, 2, 0).numpy(), view

    @settings(max_examples=30)
    @given(st.data(), st.integers(345, 400), st.integers(345, 400), st.sampled_from([1.0, 2.1, 3.3, 4.2, 8.5]))
    def test_the_view_says_where_a_mark_is_to_a_tenth_of_a_pixel(self, data, width, height, reduction):
        size, spread = (32, 40), 2 * reduction
        crop_width, crop_height = math.ceil(size[1] * reduction), math.ceil(size[0] * reduction)
        left, top = data.draw(st.integers(0, width - crop_width)), data.draw(st.integers(0, height - crop_height))
        mark = (left + crop_width * data.draw(st.floats(0.3, 0.7)), top + crop_height * data.draw(st.floats(0.3, 0.7)))
        x, y = map(np.asarray, coordinate_images(width, height))
        grey = 255 * np.exp(-((x - mark[0]) ** 2 + (y - mark[1]) ** 2) / (2 * spread**2))
        file = self.jpeg(Image.fromarray(grey.round().astype(np.uint8)).convert('RGB'))

        image, view = self.crop(file, (left, top, crop_width, crop_height), size)
        weights = np.maximum(image[..., 0].astype(float) - 8, 0)
        v, u = np.mgrid[: size[0], : size[1]] + 0.5
        centre = np.array([(weights * u).sum() / size[1], (weights * v).sum() / size[0]]) / weights.sum()
        assert np.abs(view.apply(centre) * (width, height) - mark).max() < 0.1 * reduction
        assert (file.width < width) == (reduction >= 2)

    @pytest.mark.parametrize(('crop', 'decoded'), [(63, 1), (64, 2), (127, 2), (128, 4), (300, 8)])
    def test_a_crop_decides_how_far_the_file_is_reduced(self, crop, decoded):
        file = self.jpeg(photo(512, 512))
        result, _ = self.crop(file, (10, 20, crop, crop), (32, 32))
        assert file.size == (512 // decoded, 512 // decoded)
        assert result.shape == (32, 32, 3)

    def test_a_reduced_crop_shows_what_the_whole_file_shows(self):
        whole, reduced = (self.jpeg(coarse_photo(400, 300)) for _ in range(2))
        box = (40, 20, 310, 270)
        expected = whole.convert('RGB').resize((64, 64), Image.Resampling.BICUBIC, (40, 20, 350, 290))
        ours, _ = self.crop(reduced, box, (64, 64), InterpolationMode.BICUBIC)
        assert reduced.size == (100, 75)
        assert np.abs(ours.astype(int) - expected).mean() < 2

    @pytest.mark.parametrize('mode', [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
    @pytest.mark.parametrize('size', [(64, 60), (40, 99)])
    def test_a_crop_that_fits_no_reduction_is_pillow_s_but_for_rounding(self, mode, size):
        ours, theirs = (self.jpeg(photo(101, 77)) for _ in range(2))
        result, _ = self.crop(ours, (7, 3, 90, 61), size, mode)
        expected, _ = resized_crop(theirs.convert('RGB'), View.identity(), 3, 7, 61, 90, size, mode)
        difference = np.abs(result.astype(int) - expected)
        assert difference.mean() < 0.5 and difference.max() <= 8

    def test_an_image_that_is_decoded_already_is_cut_as_its_file_is(self):
        data = self.jpeg(photo(101, 77)).fp.getvalue()
        decoded = open_image(io.BytesIO(data))
        decoded.load()
        results = [self.crop(image, (7, 3, 90, 61), (40, 40))[0] for image in (decoded, open_image(io.BytesIO(data)))]
        assert np.array_equal(*results)

    def test_the_same_crop_is_drawn_with_draft_and_without(self):
        quick, exact = (TrainTransform(24, auto_augment=None, draft=flag) for flag in (True, False))
        file = self.jpeg(coarse_photo(330, 270))
        data = file.fp.getvalue()
        for seed in range(10):
            seed_all(seed)
            ours, view = quick(open_image(io.BytesIO(data)))
            seed_all(seed)
            theirs, same_view = exact(file.convert('RGB'))
            assert np.array_equal(view.matrix, same_view.matrix)
            assert (ours.int() - theirs.int()).abs().float().mean() < 6

    @pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGB'])
    @pytest.mark.parametrize('kind', ['JPEG', 'progressive', 'exif', 'TIFF'])
    def test_files_of_every_kind_become_rgb(self, mode, kind):
        source = coarse_photo(320, 240).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by a quarter to the right
        if kind == 'TIFF':
            stream = io.BytesIO()
            source.save(stream, kind)
            file = open_image(stream)
        else:
            file = self.jpeg(source, progressive=kind == 'progressive', exif=exif if kind == 'exif' else b'')
        theirs = source.convert('RGB')
        if kind == 'exif':
            theirs = theirs.transpose(Image.Transpose.ROTATE_270)
        assert file.size == theirs.size
        ours, view = self.crop(file, (0, 0, *file.size), (48, 48))
        theirs = theirs.resize((48, 48), Image.Resampling.BILINEAR)
        assert np.array_equal(view.matrix, View.identity().matrix)
        assert np.abs(ours.astype(int) - theirs).mean() < 4

    def test_a_truncated_file_raises_an_os_error(self):
        data = self.jpeg(photo(320, 240)).fp.getvalue()
        with pytest.raises(OSError, match='truncated'):
            self.crop(open_image(io.BytesIO(data[: len(data) // 2])), (0, 0, 320, 240), (48, 48))
