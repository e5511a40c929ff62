"""The exception for bad input, and one-sentence messages for errors caused by the machine."""

import errno
import re

# Errors of the operating system that are not defects of this project, and what to do.
REFUSALS = {
    errno.ENOSPC: 'make room, or choose another place',
    errno.EDQUOT: 'make room, or choose another place',
    errno.EFBIG: 'make room, or choose another place',
    errno.EROFS: 'choose another place',
    errno.ENAMETOOLONG: 'give a shorter name',
    errno.ELOOP: 'give a name without links to itself',
    errno.EACCES: 'check its permissions',
    errno.EPERM: 'check its permissions',
    errno.EIO: 'check the disk',
    errno.ESTALE: 'check the disk',
    errno.EMFILE: 'raise `ulimit -n`, or use fewer workers',
    errno.ENFILE: 'close other programs, or use fewer workers',
    errno.EAGAIN: 'raise `ulimit -u`, or use fewer workers',
}
OPENMMLAB = ('mmengine', 'mmcv', 'mmseg')
NO_MEMORY = re.compile(r'out of memory|allocate memory|insufficient memory|ALLOC_FAILED', re.IGNORECASE)


class UserError(ValueError):
    """Bad input. The message is one sentence: what is wrong, where, and what to do.

    Commands print it and exit with status 2.
    """


def lack(error: Exception) -> str | None:
    """One sentence for an error caused by the machine (memory, disk, permissions, network), None for other errors."""
    reason = _first_sentence(error)
    if missing := missing_package(error):
        return missing
    if is_out_of_memory(error):
        return f'Memory ran out ({reason}): choose a smaller batch, smaller images or fewer workers.'
    if isinstance(error, OSError) and error.errno in REFUSALS:
        where = error.filename or 'Standard output, or another file,'
        return f'{where} cannot be read or written ({error.strerror}): {REFUSALS[error.errno]}.'
    if isinstance(error, RuntimeError) and 'DataLoader worker' in str(error) and 'Caught ' not in str(error):
        return f'A DataLoader worker died, possibly because memory ran out ({reason}): choose fewer workers.'
    if type(error).__name__ in ('DistNetworkError', 'DistStoreError'):
        return f'The processes cannot connect ({reason}): check MASTER_ADDR, and choose another PORT.'
    return None


def missing_package(error: Exception) -> str | None:
    """One sentence for a missing package of OpenMMLab, None for other errors."""
    package = (error.name or '').split('.')[0] if isinstance(error, ModuleNotFoundError) else ''
    if package not in OPENMMLAB:
        return None
    return f"This command needs {package}, which is not installed: run pip install 'tokenlabel[mm]'."


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error reports that CPU or GPU memory is exhausted."""
    if isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError':
        return True
    return (isinstance(error, (RuntimeError, OSError)) or type(error).__module__ == 'cv2') and bool(
        NO_MEMORY.search(str(error))
    )


def _first_sentence(error: Exception) -> str:
    """The first sentence of an error message, to quote in parentheses."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split('. ')[0].rstrip('.')
