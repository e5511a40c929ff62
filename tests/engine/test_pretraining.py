"""Pretraining on MMEngine: what is trained, validated, saved, resumed and refused."""

import copy
import json
import multiprocessing
from pathlib import Path

import pytest
import timm
import torch
from timm.models.resnet import ResNet

from tokenlabel.engine.hooks.non_finite_steps import StopOnNonFiniteSteps
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError
from tokenlabel.models import TokenLabelModel, load_checkpoint

WORKERS = {'num_workers': 1, 'persistent_workers': True}


def logged_metrics(runner: Runner) -> dict:
    lines = (Path(runner.log_dir) / 'vis_data/scalars.json').read_text().splitlines()
    return json.loads(lines[-1])


def test_a_run_validates_raw_and_averaged_weights_and_saves_both(make_runner):
    runner = make_runner()
    model = runner.train()
    assert {'top1', 'top5', 'raw/top1', 'raw/top5'} <= set(logged_metrics(runner))
    saved = Path(runner.work_dir) / 'iter_3.pth'
    raw, averaged = copy.deepcopy(model.model), copy.deepcopy(model.model)
    load_checkpoint(raw, saved, ema=False)
    load_checkpoint(averaged, saved, ema=True)
    assert torch.equal(raw.head.weight, model.model.head.weight)
    assert not torch.equal(averaged.head.weight, raw.head.weight)
    assert not list(Path(runner.work_dir).glob('*.part'))


def test_the_average_warms_up(make_runner):
    runner = make_runner(iterations=2)
    runner.train()
    ema = next(hook for hook in runner.hooks if hasattr(hook, 'ema_model')).ema_model
    # after two steps a decay of 0.99992 would still hold the first weights; the warmed-up one follows
    assert ema.gamma / (ema.gamma + 2) > 0.5 > ema.momentum


def test_the_scoring_rule_travels_with_the_weights(make_runner):
    runner = make_runner(**{'model.targets': {'type': 'ImageLabels'}, 'train_dataloader.dataset.label_store': None})
    model = runner.train()
    assert model.model.token_score_weight == 0
    fresh = make_runner().model.model
    assert fresh.token_score_weight == 0.5
    load_checkpoint(fresh, Path(runner.work_dir) / 'iter_3.pth')
    assert fresh.token_score_weight == 0


@pytest.mark.parametrize(
    ('targets', 'trains_tokens'),
    [
        ({'type': 'TokenLabels', 'smoothing': 0.1}, True),
        ({'type': 'TokenLabels', 'geometry': 'released'}, True),
        ({'type': 'ImageLabels', 'smoothing': 0.1}, False),
        ({'type': 'ImageLabels', 'on_tokens': True}, True),
        ({'type': 'AnnotatorImageLabels'}, False),
    ],
    ids=lambda value: '-'.join(map(str, value.values())) if isinstance(value, dict) else '',
)
def test_every_kind_of_target_trains_what_it_should(make_runner, targets, trains_tokens):
    runner = make_runner(iterations=1, **{'model.targets': targets})
    before = copy.deepcopy(runner.model.model.state_dict())
    after = runner.train().model.state_dict()
    assert not torch.equal(before['head.weight'], after['head.weight'])
    assert torch.equal(before['aux_head.weight'], after['aux_head.weight']) != trains_tokens
    assert ('train/loss_tokens' in runner.message_hub.log_scalars) == trains_tokens


def test_a_resumed_run_goes_on_with_the_samples_that_were_not_seen(make_runner, monkeypatch):
    seen = []
    original = StopOnNonFiniteSteps.after_train_iter

    def record(self, runner, batch_idx, data_batch=None, outputs=None):
        seen.append(data_batch['label'].tolist())
        original(self, runner, batch_idx, data_batch, outputs)

    monkeypatch.setattr(StopOnNonFiniteSteps, 'after_train_iter', record)
    make_runner(iterations=4).train()
    whole, seen[:] = list(seen), []
    stopped = make_runner(iterations=2, **{'work_dir': make_runner().work_dir + '_resumed'})
    stopped.train()
    resumed = make_runner(iterations=4, work_dir=stopped.work_dir, resume=True)
    resumed.train()
    assert seen == whole
    assert resumed.iter == 4


def test_a_run_leaves_no_worker(make_runner):
    runner = make_runner(
        **{f'{name}_dataloader.{key}': value for name in ('train', 'val') for key, value in WORKERS.items()}
    )
    runner.train()
    runner.val()
    assert multiprocessing.active_children() == []


def test_a_store_of_another_class_count_is_refused(make_runner):
    with pytest.raises(UserError, match=r'labels has 10 classes but the network has 20'):
        make_runner(**{'model.network.num_classes': 20}).train()


def test_fewer_network_classes_than_folders_is_refused(make_runner):
    options = {'model.network.num_classes': 5, 'model.targets': {'type': 'ImageLabels'}}
    with pytest.raises(UserError, match=r'has 10 classes but the network has 5'):
        make_runner(**options, **{'train_dataloader.dataset.label_store': None}).train()


def test_more_network_classes_than_folders_is_refused(make_runner):
    options = {'model.network.num_classes': 1000, 'model.targets': {'type': 'ImageLabels'}}
    with pytest.raises(UserError, match=r'has 10 classes but the network has 1000: set .*num_classes=10\.'):
        make_runner(**options, **{'train_dataloader.dataset.label_store': None}).train()


def test_a_schedule_that_ends_before_it_begins_is_refused(make_runner):
    with pytest.raises(
        UserError, match=r'end should be larger than begin.*begin=50, end=12.*correct its param_scheduler'
    ):
        make_runner(**{'param_scheduler.1.begin': 50, 'param_scheduler.1.end': 12}).train()


def test_token_labels_without_a_store_are_refused(make_runner):
    with pytest.raises(UserError, match=r'TokenLabels need a label store'):
        make_runner(**{'train_dataloader.dataset.label_store': None}).train()


def test_one_key_changes_the_family_that_learns_from_token_labels(make_runner):
    network = {'_delete_': True, 'model_name': 'resnet10t', 'num_classes': 10, 'mix_token': True}
    runner = make_runner(iterations=1, **{'model.network': network})
    network = runner.model.model
    before = copy.deepcopy(network.state_dict())
    runner.train()
    after = network.state_dict()
    assert isinstance(network, TokenLabelModel) and network.mix_token
    for name in ('backbone.conv1.0.weight', 'backbone.fc.weight', 'aux_head.weight'):
        assert not torch.equal(before[name], after[name]), name
    fresh = TokenLabelModel('resnet10t', num_classes=10)
    load_checkpoint(fresh, Path(runner.work_dir) / 'iter_1.pth')
    torch.testing.assert_close(fresh.state_dict(), after)


def test_weights_of_a_network_named_with_its_tag_load_into_the_network_without(make_runner):
    network = {'_delete_': True, 'model_name': 'resnet10t.c3_in1k', 'num_classes': 10}
    runner = make_runner(iterations=1, **{'model.network': network})
    runner.train()
    load_checkpoint(timm.create_model('resnet10t', num_classes=10), Path(runner.work_dir) / 'iter_1.pth')


def test_image_labels_train_the_bare_network_of_timm_unless_mix_token_is_asked_for(make_runner):
    options = {'model.targets': {'type': 'ImageLabels'}}
    network = {'_delete_': True, 'model_name': 'resnet10t', 'num_classes': 10}
    assert type(make_runner(**options, **{'model.network': network | {'mix_token': False}}).model.model) is ResNet
    mixing = make_runner(iterations=1, **options, **{'model.network': network | {'mix_token': True}})
    before = mixing.model.model.aux_head.weight.clone()
    network = mixing.train().model
    assert network.mix_token and network.token_score_weight == 0
    assert torch.equal(network.aux_head.weight, before)


def test_token_targets_for_a_network_without_a_map_of_locations_are_refused(make_runner):
    with pytest.raises(UserError, match=r'pit_ti_224 cannot have a token head: its features are the class token alone'):
        make_runner(**{'model.network': {'_delete_': True, 'model_name': 'pit_ti_224', 'num_classes': 10}})


def test_an_unknown_network_is_refused_with_what_it_resembles(make_runner):
    with pytest.raises(UserError, match=r'timm knows no model `lvit_s`: did you mean .*lvvit_s'):
        make_runner(**{'model.network.model_name': 'lvit_s'})


def test_a_patch_that_does_not_divide_the_image_is_refused(make_runner):
    with pytest.raises(UserError, match=r'does not divide the image size 60x60'):
        make_runner(**{'model.network.img_size': 60})


def test_a_checkpoint_of_another_model_is_refused(make_runner):
    runner = make_runner()
    runner.train()
    other = make_runner(**{'model.network.depth': 5, 'load_from': runner.work_dir + '/iter_3.pth'})
    with pytest.raises(UserError, match=r'iter_3\.pth does not fit this model .*blocks\.4'):
        other.train()


def test_a_truncated_checkpoint_is_refused(make_runner):
    runner = make_runner()
    runner.train()
    path = Path(runner.work_dir) / 'iter_3.pth'
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r'iter_3\.pth is (damaged|truncated)'):
        make_runner(iterations=4, resume=True).train()


def test_a_checkpoint_that_carries_code_is_refused(make_runner, tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / 'executed',))

    torch.save({'state_dict': {}, 'payload': Payload()}, tmp_path / 'evil.pth')
    with pytest.raises(UserError, match=r'evil\.pth is refused because reading it could run code'):
        make_runner().load_checkpoint(str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'executed').exists()
