"""One run at a time in a work dir."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import BinaryIO

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import MMLogger

from tokenlabel.errors import UserError
from tokenlabel.files.writing import disk_errors

LOCK_FILE = 'run.lock'
PATIENCE = 5.0  # seconds that a process that was killed may take to end


@contextmanager
def sole_run(work_dir: str | Path) -> Iterator[None]:
    """Keeps other runs out of a work dir until the block ends, or this process, however it does.

    The first process of a run holds a file lock for all of them. A file system without locks is used without one, after
    a warning.

    Raises:
        UserError: another run is at work there, or the lock cannot be written; in all processes.
    """
    faults, lock = [None], None
    if is_main_process():
        try:
            lock = _claim(Path(work_dir))
        except UserError as error:
            faults = [str(error)]
    broadcast_object_list(faults)
    if faults[0] is not None:
        raise UserError(faults[0])
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _claim(work_dir: Path) -> BinaryIO:
    path = work_dir / LOCK_FILE
    with disk_errors(path):
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), 'r+b', buffering=0)
    # workers that outlive this process for a while must not hold the lock for it
    register_after_fork(file, lambda inherited: inherited.close())
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                MMLogger.get_current_instance().warning(
                    f'{work_dir} is on a file system without locks ({error.strerror}): two runs in it at once would '
                    'spoil each other, and are not kept apart.'
                )
                return file
        if time.monotonic() > until:
            owner = file.read(200).decode(errors='replace').strip()
            file.close()
            raise UserError(
                f'{work_dir} is in use by another run{owner and f" ({owner})"}: wait until it has ended, or choose '
                'another folder with --work-dir.'
            )
        time.sleep(0.2)
    with suppress(OSError):  # it is for people
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
    return file
