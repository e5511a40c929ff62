"""A step of pretraining never makes the host wait for the device: nothing is read back."""

from contextlib import nullcontext

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from tokenlabel.engine import SteppedEMA, TokenLabelClassifier

NETWORKS = {
    'lvvit': dict(model_name='lvvit_t', img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, stem_width=8),
    'resnet': dict(model_name='resnet10t'),
}


def classifier(network: str, **options) -> TokenLabelClassifier:
    """With all that a step can have: MixToken, drop path, erasing, labels of images in the class token's target."""
    return TokenLabelClassifier(
        {**NETWORKS[network], 'num_classes': 10, 'drop_path_rate': 0.3, 'mix_token': True},
        targets={'type': 'TokenLabels', 'smoothing': 0.1},
        loss={'ground_truth': True},
        data_preprocessor={'type': 'ImagePreprocessor', 'erasing': 0.5},
        **options,
    ).train()


def batch_of(num_images: int, size: int) -> dict[str, Tensor]:
    """As the loader gives it, of rotated Views."""
    view = torch.tensor([[0.4, -0.1, 0.2], [0.1, 0.5, 0.3]]).repeat(num_images, 1, 1)
    return {
        'image': torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8),
        'label': torch.arange(num_images),
        'scores': torch.randn(num_images, 3, 8, 8).half(),
        'classes': torch.randint(0, 10, (num_images, 3, 8, 8), dtype=torch.int32),
        'view': view,
        'map_view': view,
    }


@pytest.mark.parametrize('network', NETWORKS)
def test_forward_loss_and_backward_read_nothing_of_the_device(network, monkeypatch):
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # it does not know this device
    model = classifier(network).to('meta')  # where there are no values, so that reading one is an error
    losses = model(**model.data_preprocessor(batch_of(4, 32), training=True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert all(p.grad.is_meta for p in model.parameters())
    with pytest.raises((RuntimeError, NotImplementedError)):
        loss.item()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize('compile', [False, True])
def test_on_a_gpu_no_step_waits(compile):
    model = classifier('lvvit', channels_last=True, compile=compile).cuda()
    average = SteppedEMA(model)
    optimizer = {'type': 'AdamW', 'lr': 1e-3, 'fused': True}
    wrapper = {'type': 'SkippingAmpOptimWrapper', 'dtype': 'bfloat16', 'optimizer': optimizer}
    wrapper = build_optim_wrapper(model, wrapper | {'clip_grad': {'max_norm': 1.0}})
    batches = [batch_of(4, 32) for _ in range(4)]
    for batch in batches:
        for name in ('image', 'label', 'scores', 'classes'):
            batch[name] = batch[name].pin_memory()

    def step(batch: dict[str, Tensor]) -> None:
        model.train_step(batch, wrapper)
        average.update_parameters(model, wrapper.stepped)

    for batch in batches[:2]:
        step(batch)
    torch.cuda.set_sync_debug_mode('error')
    try:
        for batch in batches[2:]:
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode('default')
