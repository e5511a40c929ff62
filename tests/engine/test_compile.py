"""`model.compile`, `model.grad_checkpointing` and `model.channels_last`: how the network runs, not what it computes."""

import copy

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, distributed
from torch._dynamo.utils import counters

from tests.two_processes import in_two_processes
from tokenlabel.engine import SteppedEMA, TokenLabelClassifier, compilation
from tokenlabel.errors import UserError

LVVIT = dict(model_name='lvvit_t', img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, stem_width=8)
FAMILIES = {
    'lvvit': LVVIT,
    'deit': dict(model_name='deit_tiny_patch16_224', img_size=32, embed_dim=48, depth=2),
    'swin': dict(
        model_name='swin_tiny_patch4_window7_224',
        img_size=64,
        window_size=2,
        embed_dim=16,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
    ),
    'mixer': dict(model_name='mixer_s32_224', img_size=64),
    'convnext': dict(model_name='convnext_atto', depths=(1, 1, 1, 1), dims=(8, 16, 32, 64)),
    'resnet': dict(model_name='resnet10t'),
}
QUICK = ('lvvit', 'resnet')  # one that mixes tokens, one that mixes pixels
NOISE = {'drop_path_rate': 0.3, 'mix_token': True}


@pytest.fixture(autouse=True)
def no_graphs():
    """Graphs of the test before are forgotten."""
    torch._dynamo.reset()
    counters.clear()


def classifier(network: dict = LVVIT, **options) -> TokenLabelClassifier:
    torch.manual_seed(0)
    targets = {'type': 'TokenLabels', 'smoothing': 0.1}
    return TokenLabelClassifier({**network, 'num_classes': 10}, targets, **options).train()


def batch_of(num_images: int, size: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(num_images)
    view = torch.eye(3)[:2].repeat(num_images, 1, 1)
    return {
        'image': torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8, generator=generator),
        'label': torch.arange(num_images),
        'scores': torch.randn(num_images, 3, 8, 8, generator=generator).sort(1, descending=True).values,
        'classes': torch.randint(0, 10, (num_images, 3, 8, 8), generator=generator),
        'view': view,
        'map_view': view,
    }


def step(model: torch.nn.Module, num_images: int = 4, size: int = 32) -> float:
    """The loss of a batch, propagated to the gradients."""
    network = model.module if hasattr(model, 'module') else model
    losses = model(**network.data_preprocessor(batch_of(num_images, size), training=True), mode='loss')
    loss = losses['loss_cls'] + losses['loss_tokens']
    loss.backward()
    return loss.item()


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    'family', [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_training_is_one_graph_with_mix_token_and_drop_path_and_evaluation_in_between(family):
    network = FAMILIES[family]
    model, size = classifier(network | NOISE, compile='eager'), network.get('img_size', 96)
    for _ in range(2):
        for _ in range(3):
            step(model, size=size)
        model.eval()
        for num_images in (4, 3):
            model.val_step(batch_of(num_images, size))
        model.train()
    assert counters['stats']['unique_graphs'] == 1
    assert model._compiled.is_compiled


def test_a_size_of_batch_that_came_before_makes_no_new_graph():
    model = classifier(LVVIT | NOISE, compile='eager')
    for num_images in (4, 4, 3, 4, 3):
        step(model, num_images)
    assert counters['stats']['unique_graphs'] == 2


@pytest.mark.parametrize('options', [{}, {'grad_checkpointing': True, 'channels_last': True}], ids=str)
def test_compiled_or_not_loss_and_gradients_are_the_same(options):
    plain, compiled = classifier(), classifier(compile='aot_eager', **options)
    assert step(plain) == pytest.approx(step(compiled))
    assert counters['stats']['unique_graphs'] == 1
    torch.testing.assert_close(gradients(plain), gradients(compiled), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_inductor_computes_the_same():
    plain, compiled = classifier(), classifier(compile='inductor')
    assert step(plain) == pytest.approx(step(compiled), rel=1e-5)
    torch.testing.assert_close(gradients(plain), gradients(compiled), rtol=1e-3, atol=1e-5)


def test_nothing_in_the_graph_is_computed_on_the_host():
    devices = set()

    def look(graph, inputs):
        devices.update(node.meta['example_value'].device for node in graph.graph.nodes if is_tensor(node))
        return graph

    def is_tensor(node) -> bool:
        return isinstance(node.meta.get('example_value'), Tensor)

    for family in ('lvvit', 'deit'):
        network = classifier(FAMILIES[family] | NOISE).model.to('meta')
        torch.compile(network, fullgraph=True, backend=look)(torch.empty(4, 3, 32, 32, device='meta'))
    assert devices == {torch.device('meta')}


def test_names_stay_and_the_average_is_a_copy_that_is_not_compiled():
    model = classifier(compile='eager')
    average = SteppedEMA(model)
    step(model)
    average.update_parameters(model)
    assert list(model.state_dict()) == list(classifier().state_dict()) == list(average.module.state_dict())
    assert average.module._compiled is None
    step(copy.deepcopy(model))
    assert counters['stats']['unique_graphs'] == 1


def test_a_network_that_cannot_be_compiled_trains_as_it_is_and_the_log_says_so(monkeypatch):
    said = []
    monkeypatch.setattr(compilation, 'print_log', lambda message, *_: said.append(message))
    model = classifier(compile='eager')
    forward = model.model.blocks.forward

    def breaking(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return forward(x)

    model.model.blocks.forward = breaking
    losses = [step(model), step(model)]
    assert losses == [step(classifier())] * 2
    assert len(said) == 1 and said[0].startswith('LVViT cannot be compiled (')


def test_true_compiles_on_a_gpu_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    step(classifier(compile=True))
    assert counters['stats']['unique_graphs'] == 0


def test_an_unknown_backend_is_refused():
    with pytest.raises(UserError, match=r"model\.compile is 'indctor', no backend of torch\.compile: .*inductor"):
        classifier(compile='indctor')


def test_gradient_checkpointing_changes_no_gradient():
    plain, checkpointed = classifier(), classifier(grad_checkpointing=True)
    assert checkpointed.model.grad_checkpointing
    assert step(plain) == step(checkpointed)
    torch.testing.assert_close(gradients(plain), gradients(checkpointed))


def test_gradient_checkpointing_of_a_network_without_it_is_refused():
    with pytest.raises(UserError, match=r'dla46_c has no gradient checkpointing'):
        classifier({'model_name': 'dla46_c'}, grad_checkpointing=True)


@pytest.mark.parametrize('family', ['lvvit', 'convnext'])
def test_channels_last_changes_the_memory_format_of_images_and_weights_alone(family):
    network, seen = FAMILIES[family], []
    size = network.get('img_size', 96)
    plain, last = classifier(network), classifier(network, channels_last=True)
    last.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert step(plain, size=size) == pytest.approx(step(last, size=size), rel=1e-5)
    torch.testing.assert_close(gradients(plain), gradients(last), rtol=1e-3, atol=1e-4)
    kernels = [p for p in last.parameters() if p.ndim == 4]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (*seen, *kernels)) and seen and kernels


def test_a_run_goes_on_with_other_settings_of_speed(make_runner):
    run = make_runner(iterations=2)
    run.train()
    settings = {'model.compile': 'eager', 'model.grad_checkpointing': True, 'model.channels_last': True}
    faster = make_runner(iterations=4, work_dir=run.work_dir, resume=True, **settings)
    faster.train()
    assert faster.iter == 4
    assert counters['stats']['unique_graphs'] == 1


def train_compiled(rank: int, grad_checkpointing: bool) -> None:
    large = LVVIT | NOISE | {'embed_dim': 192, 'depth': 4}
    model = classifier(large, compile='aot_eager', grad_checkpointing=grad_checkpointing)
    model = MMDistributedDataParallel(model, device_ids=None, bucket_cap_mb=1)  # several, so that torch cuts the graph
    for _ in range(3):
        step(model)
    assert counters['stats']['unique_graphs'] == 1 and model.module._compiled.is_compiled
    total = sum(parameter.grad.double().sum() for parameter in model.parameters())
    totals = [torch.zeros_like(total) for _ in range(2)]
    distributed.all_gather(totals, total)
    assert totals[0] == totals[1]


@pytest.mark.slow
@pytest.mark.parametrize('grad_checkpointing', [False, True])
def test_processes_train_on_one_graph_each(grad_checkpointing):
    in_two_processes(train_compiled, grad_checkpointing)
