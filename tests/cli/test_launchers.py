"""Several processes: what starts them, what Slurm is told, what is said when one fails, continuing when one is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.two_processes import free_port

TINY = [f'model.network.{size}' for size in ('embed_dim=32', 'depth=1', 'num_heads=1', 'stem_width=8')]

# Runs the command that srun would start in every task, here one after the other's start.
FAKE_SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$RECORD"
while [[ $1 == --* ]]; do
  if [[ $1 == --ntasks=* ]]; then export SLURM_NTASKS=${1#*=}; fi
  shift
done
for ((task = 0; task < SLURM_NTASKS; task++)); do SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & done
status=0
for ((task = 0; task < SLURM_NTASKS; task++)); do wait -n || status=$?; done
exit $status
"""


@pytest.fixture
def options(scenes, label_store) -> list[str]:
    """A run of pretraining, tiny and without validation images in workers."""
    options = [f'{split}_dataloader.dataset.root={scenes}/imagenet/val' for split in ('val', 'test')]
    options += [f'train_dataloader.dataset.root={scenes}/imagenet/train', 'train_dataloader.batch_size=4']
    options += [f'train_dataloader.dataset.label_store={label_store}', 'train_dataloader.num_workers=0']
    options += ['train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0']
    return [*options, *TINY, 'visualizer.vis_backends=[]']


@pytest.fixture
def srun(tmp_path) -> dict[str, str]:
    """Environment with an `srun` that writes down its arguments, one a line, and runs the tasks here."""
    path = tmp_path / 'bin/srun'
    path.parent.mkdir()
    path.write_text(FAKE_SRUN)
    path.chmod(0o755)
    return {
        'PATH': f'{path.parent}:{os.environ["PATH"]}',
        'RECORD': f'{tmp_path}/arguments',
        'MASTER_ADDR': '127.0.0.1',
    }


def test_slurm_is_asked_for_one_task_per_gpu_and_what_the_user_adds(run_tool, srun):
    wanted = {'GPUS': '16', 'GPUS_PER_NODE': '4', 'CPUS_PER_TASK': '12', 'SRUN_ARGS': '--signal=USR1@120 --qos=long'}
    run_tool('tools/slurm_train.sh', 'gpu', 'pretrain', 'c.py', '--resume', **srun, **wanted, PYTHON='true')
    arguments = Path(srun['RECORD']).read_text().splitlines()
    assert arguments[:6] == [
        '--partition=gpu',
        '--job-name=pretrain',
        '--gres=gpu:4',
        '--ntasks=16',
        '--ntasks-per-node=4',
        '--cpus-per-task=12',
    ]
    assert arguments[6:9] == ['--kill-on-bad-exit=1', '--signal=USR1@120', '--qos=long']
    assert arguments[9:] == ['true', '-u', f'{ROOT}/tools/train.py', 'c.py', '--resume', '--launcher', 'slurm']


def test_slurm_without_a_config_says_how_it_is_used(run_tool, srun):
    done = run_tool('tools/slurm_train.sh', 'gpu', 'pretrain', **srun)
    assert done.returncode == 2 and done.stderr.startswith('usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG')


def test_gpus_that_do_not_fill_their_nodes_are_refused(run_tool, srun):
    done = run_tool('tools/slurm_train.sh', 'gpu', 'job', 'c.py', **srun, GPUS='6', GPUS_PER_NODE='4')
    assert done.returncode == 2 and 'GPUS=6 is no multiple of GPUS_PER_NODE=4' in done.stderr


@pytest.mark.parametrize('value', ['x', '-1', '1.5', '2 3', '1;true'])
@pytest.mark.parametrize('name', ['NNODES', 'NODE_RANK', 'PORT', 'MAX_RESTARTS'])
def test_what_is_no_number_is_refused_before_processes_start(run_tool, name, value):
    for more in ([], ['--dry-run']):
        done = run_tool('tools/dist_train.sh', 'c.py', '2', *more, **{name: value}, PYTHON='false')
        assert (done.returncode, done.stdout) == (2, '')
        assert done.stderr == f"error: {name} is '{value}', not a whole number: correct it, or unset it.\n"


@pytest.mark.parametrize('value', ['x', '0', '-1'])
@pytest.mark.parametrize('name', ['GPUS', 'GPUS_PER_NODE', 'CPUS_PER_TASK', 'PORT'])
def test_what_is_no_number_is_refused_before_slurm_is_asked(run_tool, srun, name, value):
    done = run_tool('tools/slurm_train.sh', 'gpu', 'job', 'c.py', **srun, **{name: value})
    assert done.returncode == 2
    assert done.stderr == f"error: {name} is '{value}', not a whole number from 1 on: correct it, or unset it.\n"


@pytest.mark.slow
def test_tasks_of_slurm_train_together(run_tool, srun, options, tmp_path):
    command = ['tools/slurm_train.sh', 'gpu', 'job', 'configs/demo/pretrain.py', '--work-dir', tmp_path / 'run']
    length = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
    done = run_tool(*command, '--cfg-options', *options, *length, **srun, GPUS='2', PORT=free_port())
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / 'run/iter_1.pth').is_file()
    assert 'Distributed launcher: slurm' in done.stdout and 'GPU number: 2' in done.stdout


def test_bad_input_of_several_processes_is_the_last_word(run_tool, tmp_path):
    command = ['tools/dist_train.sh', tmp_path / 'missing.py', '2']
    done = run_tool(*command, PORT=free_port())
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f'error: No config at {tmp_path}/missing.py')
    assert 'Traceback' not in done.stderr


def test_a_process_that_is_killed_is_named_with_its_signal(run_tool, tmp_path):
    script = tmp_path / 'dies.py'
    script.write_text('import os\nif os.environ["RANK"] == "1":\n    os.kill(os.getpid(), 9)\n')
    arguments = ['--nproc_per_node=2', f'--master_port={free_port()}', script]
    done = run_tool('tools/torchrun.py', *arguments)
    assert done.returncode == 137
    assert done.stderr.strip().splitlines()[-1].startswith('error: process 1 was killed by SIGKILL')


# Tells that it listens, and ends when it has heard SIGUSR1, leaving a file each time.
LISTENS = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGUSR1, lambda *_: (Path(__file__).with_name('heard' + os.environ['RANK']).touch(), sys.exit()))
Path(__file__).with_name('listens' + os.environ['RANK']).touch()
while True:
    signal.pause()
"""


def test_a_signal_reaches_every_process(tmp_path):
    (tmp_path / 'listens.py').write_text(LISTENS)
    arguments = [sys.executable, 'tools/torchrun.py', '--nproc_per_node=2', f'--master_port={free_port()}']
    with subprocess.Popen([*arguments, tmp_path / 'listens.py'], cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        while len(list(tmp_path.glob('listens[01]'))) < 2:
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.1)
        run.send_signal(signal.SIGUSR1)
        errors = run.communicate()[1]
    assert run.returncode == 128 + signal.SIGUSR1
    assert 'Traceback' not in errors
    assert len(list(tmp_path.glob('heard[01]'))) == 2


# A config whose second process kills itself once, before its fourth iteration.
LOSES_A_PROCESS = """
_base_ = ['{configs}/demo/pretrain.py']
custom_imports = dict(imports=['tokenlabel.engine', 'loses_a_process'])
custom_hooks = [dict(type='LosesAProcess')]
default_hooks = dict(checkpoint=dict(interval=2, save_best=None))
train_cfg = dict(max_iters=5, val_interval=5)
"""
HOOK = """
import os
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class LosesAProcess(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank == 1 and runner.iter == 3 and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':
            os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_run_that_loses_a_process_starts_anew_from_its_last_checkpoint(run_tool, options, tmp_path):
    (tmp_path / 'loses_a_process.py').write_text(HOOK)
    (tmp_path / 'config.py').write_text(LOSES_A_PROCESS.format(configs=ROOT / 'configs'))
    command = ['tools/dist_train.sh', tmp_path / 'config.py', '2', '--work-dir', tmp_path / 'run']
    environment = {'MAX_RESTARTS': '1', 'PORT': free_port(), 'PYTHONPATH': str(tmp_path)}
    done = run_tool(*command, '--cfg-options', *options, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'all processes restarted (restart 1) and start from the newest checkpoint' in done.stdout + done.stderr
    assert 'resumed epoch: 0, iter: 2' in done.stdout
    assert (tmp_path / 'run/iter_5.pth').is_file()
