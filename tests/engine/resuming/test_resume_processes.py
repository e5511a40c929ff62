"""The commands users type: a process is killed by SIGKILL or SIGTERM, and `--resume` ends the run bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.engine.resuming.interruptions import RANDOM, differences
from tests.two_processes import free_port


@pytest.fixture
def options(scenes, label_store) -> dict:
    roots = {f'{split}_dataloader.dataset.root': f'{scenes}/imagenet/val' for split in ('val', 'test')}
    roots |= {'train_dataloader.dataset.root': f'{scenes}/imagenet/train'}
    length = {'train_dataloader.batch_size': 4, 'train_cfg.max_iters': 8, 'train_cfg.val_interval': 4}
    return RANDOM | roots | length | {'train_dataloader.dataset.label_store': label_store}


def config_with(hook: dict | None, folder: Path) -> Path:
    """The demo's pretraining with a hook of the tests."""
    imports = ['tokenlabel.engine', 'tests.engine.resuming.interruptions']
    hooks = [{'type': 'ModelConfigHook'}, *([hook] if hook else [])]
    path = folder / f'{hook["iteration"] if hook else "whole"}.py'
    path.write_text(
        f'_base_ = [{str(ROOT / "configs/demo/pretrain.py")!r}]\n'
        f'custom_imports = dict(imports={imports})\ncustom_hooks = {hooks}\n'
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_killed_and_resumed_it_ends_with_the_same_weights(run_tool, options, tmp_path, processes):
    def train(folder: str, hook: dict | None, workers: int):
        changes = [f'{key}={value}' for key, value in (options | {'train_dataloader.num_workers': workers}).items()]
        changes += [f'train_dataloader.persistent_workers={workers > 0}']
        command = ['tools/dist_train.sh', config_with(hook, tmp_path), str(processes), '--work-dir', tmp_path / folder]
        return run_tool(*command, '--resume', '--cfg-options', *changes, PORT=free_port())

    done = train('whole', None, workers=0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'training starts from scratch' in done.stdout
    kill = {'type': 'EndAt', 'iteration': 5, 'kill': True, 'rank': processes - 1}
    assert train('killed', kill, workers=2).returncode != 0
    newest = tmp_path / 'killed/iter_4.pth'
    shutil.copy(newest, tmp_path / 'killed/iter_6.pth')
    os.truncate(tmp_path / 'killed/iter_6.pth', 1000)
    (tmp_path / 'killed/last_checkpoint').write_text(str(tmp_path / 'killed/iter_6.pth'))
    done = train('killed', None, workers=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Skipped: ' in done.stdout and 'resumed epoch: 0, iter: 4' in done.stdout
    assert differences(tmp_path / 'whole/iter_8.pth', tmp_path / 'killed/iter_8.pth') == []


@pytest.mark.slow
def test_a_job_of_two_processes_with_workers_ends_at_sigterm_with_a_checkpoint(options, tmp_path):
    options |= {'train_cfg.max_iters': 100_000, 'train_cfg.val_interval': 100_000, 'train_dataloader.num_workers': 1}
    options |= {'default_hooks.checkpoint.interval': 100_000, 'default_hooks.logger.interval': 1}
    changes = [f'{key}={value}' for key, value in options.items()]
    command = ['tools/dist_train.sh', 'configs/demo/pretrain.py', '2', '--work-dir', tmp_path, '--cfg-options']
    settings = {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'PORT': free_port()}
    job = subprocess.Popen([str(word) for word in command + changes], cwd=ROOT, env=os.environ | settings)
    while job.poll() is None and not any(tmp_path.glob('*/vis_data/scalars.json')):
        time.sleep(0.5)
    job.send_signal(signal.SIGTERM)
    job.wait(300)
    saved = list(tmp_path.glob('iter_*.pth'))
    assert len(saved) == 1
    last = json.loads(next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()[-1])
    assert saved[0].name == f'iter_{last["step"]}.pth'
