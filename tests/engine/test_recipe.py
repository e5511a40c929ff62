"""The published recipe at real size: what its configs build, and one step of each model."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS

from tests.label_stores import write_store
from tests.places import CONFIGS
from tokenlabel.data.images import LabeledImages
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.length import with_ends
from tokenlabel.transforms.image import TrainTransform

VARIANTS = {'t': 8.53, 's': 26.15, 'm': 55.83, 'l': 150.02}
DROP_PATH = {'t': 0.1, 's': 0.1, 'm': 0.2, 'l': 0.3}
RATES = {'t': 1.6e-3, 's': 1.6e-3, 'm': 1.6e-3, 'l': 1e-3}
CROPS = {'t': 0.9, 's': 0.9, 'm': 1.0, 'l': 1.0}


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture
def config(variant):
    config = load_config(CONFIGS / f'pretrain_lvvit_{variant}.py')
    register_imports(config)
    return config


def in_float32(optim_wrapper: dict) -> dict:
    """The same without mixed precision, which needs a GPU."""
    return {key: value for key, value in optim_wrapper.items() if key != 'dtype'} | {'type': 'OptimWrapper'}


def test_the_recipe_is_the_published_one(config, variant):
    network = config.model.network
    assert (network.drop_path_rate, network.mix_token, network.num_classes) == (DROP_PATH[variant], True, 1000)
    assert config.optim_wrapper.optimizer == dict(
        type='AdamW', lr=RATES[variant], betas=(0.9, 0.999), weight_decay=0.05, fused=True
    )
    assert config.auto_scale_lr == dict(enable=True, base_batch_size=1024)
    warmup, cosine = with_ends(config.param_scheduler, config.train_cfg)[0]
    assert warmup.end == cosine.begin == 5 and cosine.end == 300 and config.train_cfg.max_epochs == 310
    assert warmup.start_factor * RATES[variant] == pytest.approx(1e-6) and cosine.eta_min == 1e-5
    layers = 'n3-' if variant == 'l' else ''
    assert config.train_dataloader.dataset.transform.auto_augment == f'rand-{layers}m9-mstd0.5-inc1'
    assert config.val_dataloader.dataset.transform.crop_pct == CROPS[variant]
    assert config.test_dataloader.dataset.transform.crop_pct == CROPS[variant]
    assert (config.model.targets.smoothing, config.model.data_preprocessor.erasing) == (0.1, 0.25)
    assert config.default_hooks.ema.momentum == pytest.approx(1 - 0.99992)


def test_the_learning_rate_warms_up_falls_to_its_minimum_and_stays_there(config, variant):
    epoch = 4  # iterations
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=RATES[variant])
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler), default_args=dict(optimizer=optimizer, epoch_length=epoch))
        for scheduler in with_ends(config.param_scheduler, config.train_cfg)[0]
    ]
    rates = []
    for _ in range(310 * epoch):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) == pytest.approx(RATES[variant]) and rates.index(max(rates)) == pytest.approx(5 * epoch, abs=1)
    assert rates[-10 * epoch :] == pytest.approx([1e-5] * 10 * epoch, rel=1e-3)


def test_biases_norms_and_embeddings_are_not_decayed(config, variant):
    model = MODELS.build(config.model | dict(network=config.model.network | dict(depth=2)))
    wrapper = build_optim_wrapper(model, in_float32(config.optim_wrapper))
    decay = {id(group['params'][0]): group['weight_decay'] for group in wrapper.optimizer.param_groups}
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim == 1 or name in ('model.cls_token', 'model.pos_embed')
        assert decay[id(parameter)] == (0 if exempt else 0.05), name


def test_a_model_of_real_size_takes_a_step_on_images_and_their_label_maps(config, variant, scenes, tmp_path):
    images = scenes / 'imagenet/train'
    keys = [path.relative_to(images).as_posix() for path in images.rglob('*.jpg')]
    store = write_store(tmp_path / 'labels', keys, num_classes=1000, k=5, grid=18)
    dataset = LabeledImages(images, TrainTransform(224), store.path)
    batch = torch.utils.data.default_collate([dataset[index] for index in range(2)])
    model = MODELS.build(config.model).train()
    assert sum(x.numel() for x in model.parameters()) / 1e6 == pytest.approx(VARIANTS[variant], abs=0.01)
    wrapper = build_optim_wrapper(model, in_float32(config.optim_wrapper))
    before = model.model.aux_head.weight.clone()
    losses = model.train_step(batch, wrapper)
    assert all(torch.isfinite(value) for value in losses.values())
    assert float(losses['loss']) == pytest.approx(float(losses['loss_cls'] + losses['loss_tokens']))
    assert not torch.equal(model.model.aux_head.weight, before)


@pytest.mark.parametrize(
    ('name', 'parameters'),
    [('s_384', 26.30), ('m_384', 56.03), ('m_448', 56.13), ('l_448', 150.47), ('l_512', 150.66)],
)
def test_fine_tuning_at_a_higher_resolution_is_the_published_recipe(name, parameters):
    config = load_config(CONFIGS / f'finetune/lvvit_{name}.py')
    register_imports(config)
    variant, size = name.split('_')
    network = config.model.network
    assert (network.model_name, network.img_size) == (f'lvvit_{variant}', int(size))
    assert (network.drop_path_rate, network.mix_token) == (DROP_PATH[variant], True)
    assert config.initial_weights == f'work_dirs/pretrain_lvvit_{variant}'
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 512
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay, config.param_scheduler) == (5e-6, 1e-8, [])
    assert config.train_cfg.max_epochs == 30
    for split in ('train', 'val', 'test'):
        assert config[f'{split}_dataloader'].dataset.transform.size == int(size)
    assert config.test_dataloader.dataset.transform.crop_pct == CROPS[variant]
    model = MODELS.build(config.model)
    assert sum(x.numel() for x in model.parameters()) / 1e6 == pytest.approx(parameters, abs=0.01)
