"""Resumes after torchrun has restarted the processes."""

import os
from pathlib import Path

from mmengine.dist import all_gather_object
from mmengine.runner import Runner


def resume_after_restart(runner: Runner) -> None:
    """Makes training resume from its newest checkpoint after torchrun has restarted the processes.

    This overrides the start that the command names. Checkpoints older than the launch (`LAUNCHED_AT`, in seconds since
    1970) belong to another run: without a newer one, training starts as the command says.
    """
    restarts = max(all_gather_object(int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0))))
    if restarts:
        launched = float(os.environ.get('LAUNCHED_AT', 0))
        found = any(path.stat().st_mtime >= launched for path in Path(runner.work_dir).glob('*.pth'))
        start = 'as at launch, as there is no checkpoint yet'
        if any(all_gather_object(found)):
            start = 'from the newest checkpoint'
            runner._resume, runner._load_from = True, None
        runner.logger.warning(f'A process was lost; all processes restarted (restart {restarts}) and start {start}.')
