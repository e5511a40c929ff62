"""A command in a process of its own, forked from the tests': it costs no imports, and may be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


class ForkedCommand:
    """A function that runs in a forked process as a command does, its output in files.

    Args:
        folder: for the output.
        main: the function; what it returns, or a `SystemExit` of it, is the exit status.
        arguments: of the function.
        stdout: an open descriptor to print to; a file when None.
    """

    def __init__(self, folder: Path, main: Callable, *arguments, stdout: int | None = None) -> None:
        self.files = [folder / 'child.out', folder / 'child.err']
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                status = self._run(main, arguments, stdout)
            finally:
                os._exit(status)

    def _run(self, main: Callable, arguments: tuple, stdout: int | None) -> int:
        os.setsid()
        if 'torch' in sys.modules:  # whose threads are not forked
            sys.modules['torch'].set_num_threads(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for descriptor, file in enumerate(self.files, 1):
            opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(opened if stdout is None or descriptor == 2 else stdout, descriptor)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), 'w', encoding='utf-8') for number in (1, 2))
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        try:
            return main(*arguments) or 0
        except SystemExit as end:
            return end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Waits for something that the process does."""
        while not happened():
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), self.errors
            time.sleep(0.01)

    def signal(self, number: int, *, group: bool = False) -> None:
        """Sends a signal to the process, or to it and its workers alike, as terminals and job systems do."""
        (os.killpg if group else os.kill)(self.pid, number)

    def wait(self) -> int:
        """The exit status as `subprocess` has it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def output(self) -> str:
        return self.files[0].read_text()

    @property
    def errors(self) -> str:
        return self.files[1].read_text()


def run_forked(folder: Path, main: Callable, *arguments, **options) -> subprocess.CompletedProcess:
    """Status and output of a function that runs as a command in a process of its own."""
    child = ForkedCommand(folder, main, *arguments, **options)
    return subprocess.CompletedProcess([], child.wait(), child.output, child.errors)
