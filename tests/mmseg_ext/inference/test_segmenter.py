"""`Segmenter`: the labels of MMSegmentation's own test step, for images of any size, within a memory limit."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmseg.registry import MODELS
from PIL import Image

from mmseg_ext import Segmenter
from mmseg_ext.inference.peak_memory import LiveBytes, peak_bytes
from mmseg_ext.inference.segmentation import Segmentation
from tests.segmenters import CLASSES, convolution_config, token_config, write_checkpoint
from tokenlabel.benchmarks.loss import peak_memory
from tokenlabel.errors import UserError

pytestmark = pytest.mark.distributions

SLIDE = dict(mode='slide', crop_size=(64, 48), stride=(43, 32))
SQUARE = dict(mode='slide', crop_size=(64, 64), stride=(48, 48), windows_per_batch=1)
RESIZE = dict(type='Resize', scale=(160, 96), keep_ratio=True)
MIB = 2**20


def photograph(height: int, width: int) -> np.ndarray:
    """Smooth colours."""
    rng = np.random.default_rng(height * width)
    small = rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def with_pipeline(config, *steps: dict):
    config.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), *steps, dict(type='PackSegInputs')]
    return config


def test_step_labels(config, checkpoint, image: np.ndarray) -> np.ndarray:
    """What MMSegmentation's evaluation predicts."""
    model = MODELS.build(config.model).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)['state_dict'])
    pipeline = Compose(config.test_dataloader.dataset.pipeline[1:])
    data = pipeline(dict(img=image[..., ::-1].copy(), img_shape=image.shape[:2], ori_shape=image.shape[:2]))
    with torch.no_grad():
        result = model.test_step({'inputs': [data['inputs']], 'data_samples': [data['data_samples']]})
    return result[0].pred_sem_seg.data[0].numpy()


test_step_labels.__test__ = False


def largest_input(segmenter: Segmenter, monkeypatch) -> list[int]:
    """A list that collects the pixels of every input which goes through `inference`."""
    seen, inference = [], segmenter.model.inference

    def counted(inputs, metas):
        seen.append(inputs[0, 0].numel())
        return inference(inputs, metas)

    monkeypatch.setattr(segmenter.model, 'inference', counted)
    return seen


@pytest.mark.parametrize('kind', ['EncoderDecoder', 'BatchedEncoderDecoder'])
@pytest.mark.parametrize('test_cfg', [dict(mode='whole'), SLIDE], ids=['whole', 'slide'])
@pytest.mark.parametrize('steps', [[RESIZE], []], ids=['resized', 'own size'])
def test_labels_are_those_of_evaluation(tmp_path, kind, test_cfg, steps):
    config = with_pipeline(token_config(type=kind, **test_cfg), *steps)
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    image = photograph(101, 150)
    result = Segmenter(config, checkpoint)(image)
    expected = test_step_labels(config, checkpoint, image)
    assert result.labels.shape == (101, 150) and result.labels.dtype == np.uint8
    assert len(np.unique(expected)) > 1
    assert (result.labels == expected).mean() > (0.999 if steps else 0.9999)


def test_a_model_of_grey_images_gets_grey_ones(tmp_path):
    config = convolution_config()
    config.model.backbone.in_channels = 1
    config.model.data_preprocessor |= dict(mean=[120.0], std=[60.0], bgr_to_rgb=False)
    config.test_dataloader.dataset.pipeline[0].color_type = 'grayscale'
    checkpoint = write_checkpoint(config, tmp_path / 'model.pth')
    image = photograph(40, 50)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    segmenter = Segmenter(config, checkpoint)
    labels = segmenter(image).labels
    assert (labels == segmenter(grey).labels).all() and len(np.unique(labels)) > 1
    inputs = segmenter._normalise(dict(inputs=[torch.from_numpy(grey)[None]]))['inputs']
    assert inputs.shape == (1, 1, 40, 50)


def test_the_image_comes_back_upright(tmp_path):
    config = token_config()
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(photograph(40, 70)).save(tmp_path / 'i.jpg', exif=exif)
    segmenter = Segmenter(config, write_checkpoint(config, tmp_path / 'c.pth'))
    result = segmenter(tmp_path / 'i.jpg')
    assert result.labels.shape == (70, 40) and result.image.shape == (70, 40, 3)
    np.testing.assert_array_equal(segmenter(Image.open(tmp_path / 'i.jpg')).labels, result.labels)


@pytest.mark.parametrize('steps', [[RESIZE], []], ids=['resized', 'own size'])
def test_any_size(tmp_path, steps):
    config = with_pipeline(token_config(**SLIDE), *steps)
    segmenter = Segmenter(config, write_checkpoint(config, tmp_path / 'c.pth'))
    for size in [(1, 1), (1, 3000), (700, 2), (7, 5), (150, 20)]:
        assert segmenter(photograph(*size)).labels.shape == size


@pytest.mark.parametrize(
    ('kind', 'steps'),
    [('EncoderDecoder', []), ('BatchedEncoderDecoder', [RESIZE | dict(scale=(330, 200))])],
    ids=['own size', 'resized'],
)
def test_tiles_of_sliding_windows_have_the_labels_of_the_whole_image(tmp_path, kind, steps, monkeypatch):
    config = with_pipeline(token_config(type=kind, **SLIDE), *steps)
    config.model.test_cfg.windows_per_batch = 1
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    image = photograph(237, 310)
    whole = Segmenter(config, checkpoint, memory_limit=None)(image).labels
    segmenter = Segmenter(config, checkpoint, memory_limit=8 * MIB)
    seen = largest_input(segmenter, monkeypatch)
    tiled = segmenter(image).labels
    assert len(seen) > 1 and max(seen) < 0.7 * 237 * 310
    # windows in batches of other sizes round differently
    assert (tiled == whole).mean() > 0.9999


def test_tiles_of_a_whole_image_model_have_its_labels_where_the_context_suffices(tmp_path, monkeypatch):
    config = with_pipeline(convolution_config())
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    image = photograph(401, 290)
    whole = Segmenter(config, checkpoint, memory_limit=None)(image).labels
    segmenter = Segmenter(config, checkpoint, memory_limit=8 * MIB, tile_margin=32)
    seen = largest_input(segmenter, monkeypatch)
    np.testing.assert_array_equal(segmenter(image).labels, whole)
    assert len(seen) > 1 and len(np.unique(whole)) > 2


def bytes_of(segmenter: Segmenter, image: np.ndarray) -> int:
    """Bytes of tensors that are alive at once while an image is segmented, beyond the weights."""
    with LiveBytes([*segmenter.model.parameters(), *segmenter.model.buffers()]) as count:
        segmenter(image)
    return count.peak


@pytest.mark.parametrize(
    ('kind', 'test_cfg'),
    [('EncoderDecoder', SQUARE), ('BatchedEncoderDecoder', SQUARE), ('BatchedEncoderDecoder', dict(mode='whole'))],
    ids=['windows one by one', 'windows in batches', 'whole'],
)
def test_memory_stays_within_the_limit(tmp_path, kind, test_cfg):
    config = with_pipeline(token_config(type=kind, **test_cfg))
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    image = photograph(400, 360)
    limit = 14 * MIB
    segmenter = Segmenter(config, checkpoint, memory_limit=limit)
    segmenter(image)  # counts
    assert bytes_of(segmenter, image) < limit < bytes_of(Segmenter(config, checkpoint, memory_limit=None), image)


def test_memory_is_counted_as_the_profiler_does():
    model = MODELS.build(token_config().model).eval()

    def run():
        inputs = torch.empty(1, 3, 256, 256)
        model.encode_decode(inputs, [dict(img_shape=inputs.shape[2:])])

    with torch.no_grad():
        real = peak_memory(run, 'cpu')
    assert 0.85 * real < peak_bytes(model, run) < 1.1 * real


def test_a_network_whose_memory_depends_on_values_is_said():
    with pytest.raises(UserError, match=r'the memory that Linear needs cannot be counted .*: give memory_limit=None'):
        peak_bytes(torch.nn.Linear(1, 1), lambda: torch.ones(3).sum().item())


def test_a_limit_that_no_tile_keeps_is_said(tmp_path):
    config = with_pipeline(token_config())
    segmenter = Segmenter(config, write_checkpoint(config, tmp_path / 'c.pth'), memory_limit=MIB)
    with pytest.raises(UserError, match=r'the smallest tile needs \d+ MiB of memory: raise memory_limit from 1 MiB'):
        segmenter(photograph(200, 200))


def test_a_tight_limit_makes_batches_of_windows_smaller(tmp_path):
    config = with_pipeline(token_config(type='BatchedEncoderDecoder', **SQUARE))
    config.model.test_cfg.windows_per_batch = 64
    segmenter = Segmenter(config, write_checkpoint(config, tmp_path / 'c.pth'), memory_limit=14 * MIB)
    assert segmenter(photograph(90, 90)).labels.shape == (90, 90)
    assert 1 <= segmenter.model.test_cfg.windows_per_batch < 64


def test_class_names_and_colours_are_the_checkpoints_then_the_configs(tmp_path):
    config = convolution_config(num_classes=10)
    meta = dict(dataset_meta=dict(classes=CLASSES, palette=[[i, 2, 3] for i in range(10)]))
    segmenter = Segmenter(config, write_checkpoint(config, tmp_path / 'named.pth', **meta))
    assert segmenter.class_names == CLASSES and segmenter.palette[4].tolist() == [4, 2, 3]
    older = write_checkpoint(config, tmp_path / 'older.pth', CLASSES=CLASSES, PALETTE=None)
    assert Segmenter(config, older).class_names == CLASSES
    nameless = Segmenter(config, write_checkpoint(config, tmp_path / 'nameless.pth'))
    assert nameless.class_names[:2] == ('class 0', 'class 1') and nameless.palette.shape == (10, 3)
    scenes = token_config()
    assert Segmenter(scenes, write_checkpoint(scenes, tmp_path / 's.pth')).class_names[0] == 'background'


def test_a_released_file_and_one_without_auxiliary_head_are_taken_as_they_are(tmp_path):
    config = token_config()
    ours = write_checkpoint(config, tmp_path / 'ours.pth')
    theirs = write_checkpoint(
        config, tmp_path / 'theirs.pth', lambda name: name.replace('neck.side_layer', 'backbone.side_layer')
    )
    image = photograph(50, 60)
    expected = Segmenter(config, ours)(image).labels
    np.testing.assert_array_equal(Segmenter(config, theirs)(image).labels, expected)
    state = torch.load(ours, weights_only=True)['state_dict']
    torch.save({k: v for k, v in state.items() if not k.startswith('auxiliary')}, tmp_path / 'bare.pth')
    np.testing.assert_array_equal(Segmenter(config, tmp_path / 'bare.pth')(image).labels, expected)


def test_weights_that_are_nan_or_no_real_numbers_segment_nothing(tmp_path):
    config = token_config()
    whole = torch.load(write_checkpoint(config, tmp_path / 'c.pth'), weights_only=True)
    name = 'decode_head.conv_seg.weight'
    for value, match in (
        (whole['state_dict'][name] * float('inf'), rf'weights that are NaN or infinite \(the first: {name}\)'),
        (whole['state_dict'][name].long(), rf'holds {name} as int64 and the model has float32'),
    ):
        torch.save(whole | {'state_dict': whole['state_dict'] | {name: value}}, tmp_path / 'bad.pth')
        with pytest.raises(UserError, match=match):
            Segmenter(config, tmp_path / 'bad.pth')


def test_weights_of_which_the_network_makes_nan_segment_nothing(tmp_path):
    config = convolution_config()
    whole = torch.load(write_checkpoint(config, tmp_path / 'c.pth'), weights_only=True)
    whole['state_dict']['decode_head.conv_seg.weight'].fill_(3e38)
    torch.save(whole, tmp_path / 'c.pth')
    with pytest.raises(UserError, match=r'c\.pth gives NaN or infinite logits'):
        Segmenter(config, tmp_path / 'c.pth')(photograph(50, 60))


def test_a_config_file_is_enough(tmp_path):
    config = token_config()
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    config.dump(tmp_path / 'config.py')
    assert Segmenter(tmp_path / 'config.py', checkpoint, 'cpu')(photograph(9, 9)).labels.shape == (9, 9)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(channels=32), r'c\.pth does not fit the config \(size mismatch .*\): use the config it was trained with'),
        (dict(num_classes=5), r'c\.pth was trained for \d+ classes and the config has 5'),
        (dict(type='UPerHead2'), 'names an unknown type: .*UPerHead2'),
        (dict(pool_scales=(1, 2, 3)), r'c\.pth has another decode head than the config \(\d+ left over, first '),
    ],
)
def test_another_model_is_said_in_a_sentence(tmp_path, change, sentence):
    config = token_config()
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    config.model.decode_head.update(change)
    with pytest.raises(UserError, match=sentence):
        Segmenter(config, checkpoint)


def test_weights_that_are_missing_or_left_over_are_counted(tmp_path):
    deep = token_config()
    deep.model.backbone.depth = 5
    deep.model.backbone.out_indices = (0, 1, 2, 4)
    checkpoint = write_checkpoint(token_config(), tmp_path / 'c.pth')
    with pytest.raises(UserError, match=r'does not fit the config \(\d+ missing, first backbone\.blocks\.4\.'):
        Segmenter(deep, checkpoint)
    deeper = write_checkpoint(deep, tmp_path / 'd.pth')
    with pytest.raises(UserError, match=r'does not fit the config \(\d+ left over, first backbone\.blocks\.4\.'):
        Segmenter(token_config(), deeper)


@pytest.mark.parametrize(
    ('device', 'sentence'), [('gpu', 'gpu is not a device'), ('cuda:99', 'there is no device cuda:99')]
)
def test_a_device_that_is_not_there(tmp_path, device, sentence):
    with pytest.raises(UserError, match=sentence):
        Segmenter(token_config(), tmp_path / 'c.pth', device)


def test_more_classes_than_a_byte_has(tmp_path):
    config = with_pipeline(convolution_config(num_classes=300))
    result = Segmenter(config, write_checkpoint(config, tmp_path / 'c.pth'))(photograph(40, 40))
    result.save_labels(tmp_path / 'l.png')
    assert result.labels.dtype == np.uint16
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / 'l.png')), result.labels)


def test_a_binary_model_with_one_logit(tmp_path):
    config = with_pipeline(convolution_config(num_classes=2, out_channels=1))
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    image = photograph(40, 56)
    labels = Segmenter(config, checkpoint)(image).labels
    np.testing.assert_array_equal(labels, test_step_labels(config, checkpoint, image))
    assert set(np.unique(labels)) == {0, 1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('test_cfg', [dict(mode='whole'), SLIDE], ids=['whole', 'slide'])
def test_a_gpu_gives_the_same_labels_within_the_limit(tmp_path, test_cfg):
    config = with_pipeline(token_config(type='BatchedEncoderDecoder', **test_cfg))
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    image = photograph(600, 800)
    on_gpu = Segmenter(config, checkpoint, 'cuda', memory_limit=80 * MIB)
    on_cpu = Segmenter(config, checkpoint, 'cpu', memory_limit=80 * MIB)
    assert (on_gpu(image).labels == on_cpu(image).labels).mean() > 0.99
    assert peak_memory(lambda: on_gpu(image), 'cuda') < 80 * MIB


@pytest.fixture
def segmentation() -> Segmentation:
    labels = np.array([[0, 0, 2], [0, 2, 2]], np.uint8).repeat(20, 0).repeat(20, 1)
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    return Segmentation(np.full((*labels.shape, 3), 100, np.uint8), labels, ('sky', 'tree', 'road'), palette)


def test_areas_are_sorted_and_only_of_classes_that_occur(segmentation):
    areas = segmentation.areas()
    assert [(a.label, a.name, a.pixels, a.share) for a in areas] == [(0, 'sky', 1200, 0.5), (2, 'road', 1200, 0.5)]
    assert [a.name for a in segmentation.areas(['road', 'tree'])] == ['road']
    assert segmentation.areas(['road'])[0].share == 0.5


def test_an_overlay_has_the_image_left_and_the_legend_right(segmentation):
    picture = np.asarray(segmentation.overlay(alpha=0.5))
    assert picture.shape[0] >= 40 and picture.shape[1] > 60
    assert picture[5, 5].tolist() == [178, 50, 50]
    assert picture[35, 50].tolist() == [50, 50, 178]
    plain = np.asarray(segmentation.overlay(alpha=0.5, legend=False))
    np.testing.assert_array_equal(plain, picture[:40, :60])
    assert plain[5, 39].tolist() == [255, 0, 0], 'an outline where classes meet'
    for color in segmentation.palette[[0, 2]]:
        assert (picture[:, 60:] == color).all(-1).any(), 'a square of its colour in the legend'
    assert not (picture[:, 60:] == segmentation.palette[1]).all(-1).any(), 'no square for what does not occur'


def test_an_overlay_of_some_classes_leaves_the_others_alone(segmentation):
    picture = np.asarray(segmentation.overlay(classes=['road'], legend=False))
    assert picture[5, 5].tolist() == [100, 100, 100]


def test_an_overlay_may_be_smaller_than_the_image(segmentation):
    assert segmentation.overlay(legend=False, max_side=30).size == (30, 20)
    assert segmentation.overlay(max_side=30).size[1] >= 20


def test_overlays_of_a_series_have_one_size(segmentation):
    other = Segmentation(segmentation.image, segmentation.labels * 0, segmentation.class_names, segmentation.palette)
    assert segmentation.overlay(legend_rows=3).size == other.overlay(legend_rows=3).size


def test_an_unknown_class_and_an_impossible_opacity_are_said(segmentation):
    with pytest.raises(UserError, match='there is no class lake: the model knows sky, tree, road'):
        segmentation.areas(['lake'])
    with pytest.raises(UserError, match='alpha is 2'):
        segmentation.overlay(alpha=2)
    with pytest.raises(UserError, match='does not have the suffix of a picture'):
        segmentation.save_labels('labels.txt')


def test_a_config_of_another_kind_of_model_is_refused(tmp_path):
    config = token_config()
    for model in (dict(type='TokenLabelClassifier', network=dict(model_name='lvvit_t')), None):
        config.model = model
        with pytest.raises(UserError, match='has no segmentation model'):
            Segmenter(config, tmp_path / 'c.pth')
