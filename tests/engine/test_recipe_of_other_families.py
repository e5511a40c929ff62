"""The configs of backbones other than LV-ViT: what they build, and one step of each model at its real size."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from tests.places import CONFIGS
from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.length import with_ends
from tokenlabel.models import TokenLabelModel

# config: million parameters, side of the token grid
FAMILIES = {
    'deit_s': (22.44, 14),
    'swin_t': (29.06, 7),
    'convnext_t': (29.36, 7),
    'mixer_s': (19.04, 14),
    'resnet50': (27.61, 7),
}


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def config(family):
    config = load_config(CONFIGS / f'families/pretrain_{family}.py')
    register_imports(config)
    return config


def float32_optimizer(config) -> dict:
    """The config's without mixed precision, which needs a GPU."""
    return {key: value for key, value in config.optim_wrapper.items() if key != 'dtype'} | {'type': 'OptimWrapper'}


def batch(num_images: int = 2) -> dict[str, torch.Tensor]:
    """Pixels with random label maps, as the loader gives them."""
    generator = torch.Generator().manual_seed(0)
    view = torch.eye(3)[:2].repeat(num_images, 1, 1)
    return {
        'image': torch.randint(0, 256, (num_images, 3, 224, 224), dtype=torch.uint8, generator=generator),
        'label': torch.arange(num_images),
        'scores': torch.randn(num_images, 5, 18, 18, generator=generator).sort(1, descending=True).values,
        'classes': torch.randint(0, 1000, (num_images, 5, 18, 18), generator=generator),
        'view': view,
        'map_view': view,
    }


def test_a_model_of_real_size_takes_a_step_on_token_labels(config, family):
    parameters, side = FAMILIES[family]
    classifier = MODELS.build(config.model).train()
    assert isinstance(classifier.model, TokenLabelModel) and classifier.model.mix_token
    assert sum(x.numel() for x in classifier.parameters()) / 1e6 == pytest.approx(parameters, abs=0.01)
    wrapper = build_optim_wrapper(classifier, float32_optimizer(config))
    before = classifier.model.aux_head.weight.clone()
    losses = classifier.train_step(batch(), wrapper)
    assert all(torch.isfinite(value) for value in losses.values())
    assert float(losses['loss']) == pytest.approx(float(losses['loss_cls'] + losses['loss_tokens']))
    assert not torch.equal(classifier.model.aux_head.weight, before)
    assert tuple(classifier.model._grids[224, 224]) == (side, side)


def test_the_schedule_is_that_of_the_recipe_at_another_learning_rate(config):
    warmup, cosine = with_ends(config.param_scheduler, config.train_cfg)[0]
    lr = config.optim_wrapper.optimizer.lr
    assert lr == 1e-3 and warmup.start_factor * lr == pytest.approx(1e-6)
    assert warmup.end == cosine.begin == 5 and cosine.end == 300 and config.train_cfg.max_epochs == 310


def test_biases_norms_scales_and_position_tables_are_not_decayed(config):
    classifier = MODELS.build(config.model)
    wrapper = build_optim_wrapper(classifier, float32_optimizer(config))
    decay = {id(group['params'][0]): group['weight_decay'] for group in wrapper.optimizer.param_groups}
    for name, parameter in classifier.named_parameters():
        table = any(word in name for word in ('cls_token', 'pos_embed', 'relative_position_bias_table'))
        assert decay[id(parameter)] == (0 if parameter.ndim == 1 or table else 0.05), name
