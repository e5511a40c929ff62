"""What a run logs, and that it is read from the device at the logging interval only."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.hooks import Hook

from tokenlabel.engine.config.run_config import explains_errors
from tokenlabel.engine.resuming.checkpoint_files import load_from_local
from tokenlabel.errors import UserError


def logged(runner) -> list[dict]:
    lines = (Path(runner.log_dir) / 'vis_data/scalars.json').read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if 'loss' in entry]


def test_a_log_line_has_all_that_training_is_judged_by(make_runner):
    runner = make_runner(iterations=2)
    runner.train()
    wanted = {'loss', 'loss_cls', 'loss_tokens', 'token_accuracy', 'lr', 'grad_norm', 'data_wait', 'images_per_second'}
    assert all(wanted <= set(entry) for entry in logged(runner))
    assert all(0 <= entry['token_accuracy'] <= 1 and 0 <= entry['data_wait'] <= 1 for entry in logged(runner))
    assert runner.message_hub.get_info('eta') == 0


def test_losses_are_read_at_the_logging_interval_only(make_runner):
    class Watch(Hook):
        priority = 'LOWEST'

        def __init__(self):
            self.read = []

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            history = runner.message_hub.log_scalars.get('train/loss')
            self.read.append(0 if history is None else len(history.data[0]))

    runner = make_runner(iterations=5, **{'default_hooks.logger.interval': 2, 'default_hooks.checkpoint.interval': 5})
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    assert watch.read == [0, 2, 2, 4, 5]


def test_the_history_is_that_of_mmengine(make_runner, tmp_path):
    histories = []
    for interval, hook in ((2, 'DeferredRuntimeInfoHook'), (1, 'RuntimeInfoHook')):
        options = {'default_hooks.logger.interval': interval, 'default_hooks.runtime_info.type': hook}
        runner = make_runner(iterations=5, work_dir=str(tmp_path / hook), **options)
        runner.train()
        histories.append(runner.message_hub.get_scalar('train/loss').data[0].tolist())
    assert histories[0] == pytest.approx(histories[1], rel=1e-6)


def test_a_checkpoint_between_two_log_lines_holds_the_whole_history(make_runner):
    runner = make_runner(iterations=3, **{'default_hooks.logger.interval': 100, 'default_hooks.checkpoint.interval': 2})
    runner.train()
    history = load_from_local(runner.work_dir + '/iter_2.pth')['message_hub']['log_scalars']['train/loss']
    assert len(history.data[0]) == 2


def test_another_service_gets_the_same_lines(make_runner, monkeypatch):
    lines = []
    service = SimpleNamespace(
        init=lambda **_: None,
        log=lambda values, **_: lines.append(values),
        join=lambda: None,
        config=SimpleNamespace(update=lambda *_, **__: None),
        run=SimpleNamespace(log_code=lambda **_: None),
    )
    monkeypatch.setitem(sys.modules, 'wandb', service)
    back_ends = [{'type': 'LocalVisBackend'}, {'type': 'WandbVisBackend'}]
    runner = make_runner(iterations=2, **{'visualizer.vis_backends': back_ends})
    runner.train()
    assert [line['loss'] for line in lines if 'loss' in line] == [entry['loss'] for entry in logged(runner)]
    assert any('top1' in line for line in lines)


def test_a_service_whose_package_is_missing_is_named(make_runner, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(UserError, match='pip install wandb'), explains_errors('config.py'):
        make_runner(iterations=1, **{'visualizer.vis_backends': [{'type': 'WandbVisBackend'}]}).train()


def test_the_line_of_a_validation_has_its_metrics_and_times_alone(make_runner):
    runner = make_runner(iterations=1)
    runner.train()
    line = json.loads((Path(runner.log_dir) / 'vis_data/scalars.json').read_text().splitlines()[-1])
    assert set(line) == {'top1', 'top5', 'raw/top1', 'raw/top5', 'data_time', 'time', 'step'}
