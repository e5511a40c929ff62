"""RandAugment left to the device, through the configs of pretraining."""

import torch

from tokenlabel.engine.preprocessor import ImagePreprocessor
from tokenlabel.transforms.batch_operations import encode_operations

TRANSFORM = 'train_dataloader.dataset.transform'


def first_batch(runner):
    return next(iter(runner.build_dataloader(runner._train_dataloader)))


def options(defer: bool) -> dict:
    return {
        f'{TRANSFORM}.auto_augment': 'rand-m9-p1.0-mstd0.5-inc1',
        f'{TRANSFORM}.draft': True,
        f'{TRANSFORM}.defer_rand_augment': defer,
    }


def test_a_run_trains_on_images_that_the_device_augments(make_runner):
    runner = make_runner(iterations=2, **options(True))
    before = runner.model.model.head.weight.clone()
    model = runner.train().model
    assert torch.isfinite(model.head.weight).all() and not torch.equal(model.head.weight, before)


def test_the_network_gets_nearly_the_images_that_the_loader_would_have_made(make_runner):
    preprocessor = ImagePreprocessor()
    deferred, direct = (
        preprocessor(first_batch(make_runner(**options(defer))), training=True)['batch'] for defer in (True, False)
    )
    assert set(deferred) == set(direct)
    assert torch.equal(deferred['view'], direct['view'])
    difference = 255 * 0.225 * (deferred['image'] - direct['image']).abs()
    assert difference.mean() < 0.5 and difference.median() < 0.01


def test_operations_come_before_the_normalisation():
    image = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8)
    operations = encode_operations([('Invert', ())], 1)[None]
    preprocessor = ImagePreprocessor()
    ours = preprocessor({'image': image, 'operations': operations}, training=True)['batch']
    assert torch.equal(ours['image'], preprocessor({'image': 255 - image})['batch']['image'])
    assert set(ours) == {'image'}
