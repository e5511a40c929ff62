"""What a config's network costs: parameters, and multiply-accumulates of one forward pass at its training size."""

from collections.abc import Callable

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_ext.checks.num_classes import settle_num_classes
from tokenlabel.engine.config.run_config import load_config, register_imports


def config_sizes(name: str) -> tuple[float, float]:
    """Millions of parameters, and GMACs for one image of the size that training has, or for one crop.

    Convolutions, linear layers and attention count, as torch's counter has them.
    """
    config = load_config(name)
    register_imports(config)
    if config.default_scope == 'mmseg':
        settle_num_classes(config)
        return _segmentation(config.model)
    network = dict(config.model.network, pretrained=False)
    # timm builds other networks than ours with numbers that the meta device has not
    with torch.device('meta' if network['model_name'].startswith('lvvit') else 'cpu'):
        model = MODELS.build(dict(config.model, network=network, targets={'type': 'ImageLabels', 'on_tokens': True}))
    side = config.train_dataloader.dataset.transform.size
    return _counted(model.model, (side, side), lambda images: model.model(images))


def _segmentation(settings: dict) -> tuple[float, float]:
    backbone = {key: value for key, value in settings['backbone'].items() if key not in ('init_cfg', 'pretrained')}
    with torch.device('meta'):
        model = MODELS.build(dict(settings, backbone=backbone))
    size = tuple(settings['data_preprocessor']['size'])
    return _counted(model, size, lambda images: model.decode_head(model.extract_feat(images)))


def _counted(model: nn.Module, size: tuple[int, int], forward: Callable[[Tensor], object]) -> tuple[float, float]:
    model.to('meta').eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(torch.empty(1, 3, *size, device='meta'))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return round(parameters / 1e6, 2), round(counter.get_total_flops() / 2e9, 1)
