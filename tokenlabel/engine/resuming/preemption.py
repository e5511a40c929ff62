"""Stops a run at a signal, after finishing the step and writing a checkpoint to resume from."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from tokenlabel.engine.resuming.checkpoint_hook import ResumableCheckpointHook
from tokenlabel.processes.signals import leave_signals_to_parent

SIGNALS = (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP)
# Seconds in which a second SIGINT is the same Ctrl-C: a terminal may send it to a process as well as to its launcher.
SAME_INTERRUPT = 0.5


@HOOKS.register_module()
class StopOnSignal(Hook):
    """At Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, training stops after an optimizer step and writes a checkpoint.

    The exit status is 128 plus the signal's number, or 0 after SIGUSR1. A second Ctrl-C ends the process at once. A
    signal to one rank is enough: all ranks stop after the same step, at most one step later. They agree over gloo on
    the CPU while the next step runs, without GPU synchronisation. Slurm can send SIGUSR1 before a job's time limit
    (`--signal=USR1@120`); rank 0 then requeues the job. A signal that is ignored (`nohup`) stays ignored. During
    validation the stop is deferred, and a log line says so.
    """

    priority = 'LOWEST'  # after the hook that writes checkpoints

    def __init__(self) -> None:
        self._received = 0
        self._interrupted: float | None = None
        self._says_that_it_waits = False
        self._group = self._asked = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Records signals during the block. Does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._remember) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def before_train(self, runner: Runner) -> None:
        if runner.distributed:
            self._group = torch.distributed.new_group(backend='gloo')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if not runner.optim_wrapper.should_update():  # a checkpoint does not hold accumulated gradients
            return
        if number := self._agreed():
            self._stop(runner, signal.Signals(number))

    def before_val(self, runner: Runner) -> None:
        """Waits for the pending all-reduce before validation forks workers; see `wait_for_idle_threads`."""
        if self._asked is not None:
            self._asked[0].wait()
        self._says_that_it_waits = True

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self._received and self._says_that_it_waits:
            self._says_that_it_waits = False
            name = signal.Signals(self._received).name
            runner.logger.warning(f'{name}: training stops after this validation; a second Ctrl-C ends it at once.')

    def after_train(self, runner: Runner) -> None:
        self._answer()

    def _remember(self, number: int, frame: object) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted is not None and now - self._interrupted > SAME_INTERRUPT:
                raise KeyboardInterrupt
            self._interrupted = self._interrupted or now
        self._received = number

    def _agreed(self) -> int:
        """The signal that any rank has received, with several ranks by the end of the previous step; 0 for none."""
        if self._group is None:
            return self._received
        if answer := self._answer():
            return answer
        number = torch.tensor(self._received)
        work = torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, self._group, async_op=True)
        self._asked = (work, number)
        return 0

    def _answer(self) -> int:
        if self._asked is None:
            return 0
        (work, number), self._asked = self._asked, None
        work.wait()
        return int(number)

    def _stop(self, runner: Runner, received: signal.Signals) -> None:
        hooks = [hook for hook in runner.hooks if isinstance(hook, ResumableCheckpointHook) and not hook.by_epoch]
        saved = 'no checkpoint is saved without a CheckpointHook with by_epoch=False.'
        if hooks:
            saved = f'{hooks[0].save(runner)} is saved; resume from it with --resume.'
        runner.logger.warning(f'{received.name}: training stops after iteration {runner.iter + 1}; {saved}')
        if received == signal.SIGUSR1 and runner.rank == 0:
            requeue(runner)
        runner.visualizer.close()
        # torchrun exits with the signal's status itself, and may restart processes whose status is not 0
        by_torchrun = 'TORCHELASTIC_RUN_ID' in os.environ
        raise SystemExit(0 if by_torchrun or received == signal.SIGUSR1 else 128 + received)


def requeue(runner: Runner) -> None:
    """Requeues this Slurm job; does nothing outside Slurm."""
    job = os.environ.get('SLURM_JOB_ID')
    if job is None or shutil.which('scontrol') is None:
        return
    done = subprocess.run(['scontrol', 'requeue', job], capture_output=True, text=True)
    answer = 'is requeued' if done.returncode == 0 else f'cannot be requeued ({done.stderr.strip()})'
    runner.logger.warning(f'Slurm job {job} {answer}.')


def start_worker(initialise: Callable[[int], None] | None, worker: int) -> None:
    """`worker_init_fn` that makes loader workers ignore signals sent to all processes of a job.

    The last step still needs images, and torch stops a run whose worker dies.
    """
    leave_signals_to_parent(worker)
    if initialise is not None:
        initialise(worker)
