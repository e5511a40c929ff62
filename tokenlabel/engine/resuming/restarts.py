"""Resuming after torchrun has started lost processes anew."""

import os
from pathlib import Path

from mmengine.dist import all_gather_object
from mmengine.runner import Runner


def resume_after_restart(runner: Runner) -> None:
    """Lets training resume from its newest checkpoint where torchrun has started these processes a second time.

    Whatever the command starts from then gives way. Checkpoints older than the launch (`LAUNCHED_AT`, in seconds
    since 1970) are those of another run: without a newer one, training starts as the command says.
    """
    restarts = max(all_gather_object(int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0))))
    if restarts:
        launched = float(os.environ.get('LAUNCHED_AT', 0))
        found = any(path.stat().st_mtime >= launched for path in Path(runner.work_dir).glob('*.pth'))
        start = 'as the first time: there is no checkpoint yet'
        if any(all_gather_object(found)):
            start = 'from the newest checkpoint'
            runner._resume, runner._load_from = True, None
        runner.logger.warning(f'A process was lost; all were started anew (restart {restarts}) and resume {start}.')
