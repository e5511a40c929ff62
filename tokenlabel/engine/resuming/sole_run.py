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
PATIENCE = 5.0  # seconds to wait for a killed process to end


@contextmanager
def sole_run(work_dir: str | Path) -> Iterator[None]:
    """Locks a work dir against other runs until the block or this process ends.

    Rank 0 holds a file lock for all ranks. On a file system without locks, a warning is logged instead.

    Raises:
        UserError: another run uses the work dir, or the lock file cannot be written; raised on all ranks.
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
    # workers may outlive this process and must not keep its lock
    register_after_fork(file, lambda inherited: inherited.close())
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                MMLogger.get_current_instance().warning(
                    f'{work_dir} is on a file system without locks ({error.strerror}): start no second run in it, it '
                    'would overwrite the files of the first.'
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
    with suppress(OSError):  # only informs users
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
    return file
