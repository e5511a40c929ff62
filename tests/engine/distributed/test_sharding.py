"""Sharded training: two processes that keep a part each end as two that keep everything, and their files are whole."""

import json
from types import SimpleNamespace

import pytest
import timm
import torch

import tokenlabel  # noqa: F401  registers lvvit_t
from tests.training_processes import settings, train_in_two_processes
from tokenlabel.checkpoints.weights import read_checkpoint
from tokenlabel.engine.distributed.sharding import repeated_blocks, shard
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError
from tokenlabel.models import load_checkpoint


@pytest.fixture(scope='module')
def runs(scenes, label_store, tmp_path_factory):
    """Folders of runs in two processes: `plain` and `sharded` of 3 iterations; sharded ones of 2 and resumed to 3."""
    folder = tmp_path_factory.mktemp('runs')

    def options(name: str, iterations: int = 3, **more) -> dict:
        clipped = {'optim_wrapper.clip_grad': {'max_norm': 0.5}}
        length = {'train_cfg.max_iters': iterations, 'train_cfg.val_interval': iterations}
        return settings(scenes, label_store, folder / name, **clipped, **length, **more)

    sharding = {'sharding': 'fsdp', 'custom_hooks': [{'type': 'NotesItsShare'}, {'type': 'ModelConfigHook'}]}
    train_in_two_processes(
        [
            options('plain'),
            options('sharded', **sharding),
            options('resumed', iterations=2, **sharding),
            options('resumed', **sharding, resume=True),
        ]
    )
    return folder


@pytest.mark.parametrize('run', ['sharded', 'resumed'])
@pytest.mark.parametrize('part', ['state_dict', 'ema_state_dict', 'optimizer'])
def test_sharded_training_ends_as_data_parallel_training_does(runs, run, part):
    plain, sharded = (read_checkpoint(runs / name / 'iter_3.pth')[part] for name in ('plain', run))
    torch.testing.assert_close(sharded, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('part', ['parameters', 'average', 'optimizer'])
def test_each_process_holds_its_part(runs, part):
    shares = [json.loads((runs / f'sharded/shares_{rank}.json').read_text())[part] for rank in (0, 1)]
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 0.6


@pytest.mark.parametrize('ema', [False, True])
def test_weights_of_sharded_training_load_into_the_bare_network(runs, ema):
    network = {'img_size': 64, 'patch_size': 8, 'embed_dim': 32, 'depth': 2, 'num_heads': 2, 'stem_width': 8}
    model = timm.create_model('lvvit_t', num_classes=10, **network)
    load_checkpoint(model, runs / 'sharded/iter_3.pth', ema=ema)
    saved = read_checkpoint(runs / 'sharded/iter_3.pth')['state_dict' if ema else 'ema_state_dict']
    assert torch.equal(model.head.weight, saved['model.head.weight' if ema else 'module.model.head.weight'])


@pytest.mark.parametrize(
    ('name', 'blocks'), [('lvvit_t', 12), ('swin_tiny_patch4_window7_224', 16), ('convnext_tiny', 22), ('resnet50', 16)]
)
def test_blocks_are_gathered_one_at_a_time(name, blocks):
    assert len(repeated_blocks(timm.create_model(name))) == blocks


def test_another_kind_of_sharding_is_refused():
    with pytest.raises(UserError, match=r'sets sharding=zero: set `fsdp`'):
        shard(torch.nn.Linear(1, 1), 'zero')


def test_what_is_no_pretraining_is_refused():
    with pytest.raises(UserError, match=r'sharding=fsdp is for pretraining'):
        shard(torch.nn.Linear(1, 1), 'fsdp')


def test_sharding_and_another_wrapper_are_refused():
    runner = SimpleNamespace(distributed=True, cfg={'sharding': 'fsdp'})
    with pytest.raises(UserError, match=r'sets both sharding and model_wrapper_cfg'):
        Runner.wrap_model(runner, {'type': 'MMDistributedDataParallel'}, torch.nn.Linear(1, 1))
