"""Writing a label store in a thread of its own, while the next images are being annotated."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from torch import Tensor

from tokenlabel.labels.store.writer import LabelWriter


class BackgroundWriter:
    """Hands batches to a `LabelWriter` from a thread, in order; those that wait are written with one sync.

    Used in a `with` block, which ends once everything handed in is on disk, also when an exception ends it. What goes
    wrong in the thread is raised at the next `write`, or at the end of the block.

    Args:
        writer: receives the batches; nothing else may write to it meanwhile.
        depth: batches that may wait; `write` blocks while there are so many.
    """

    def __init__(self, writer: LabelWriter, depth: int = 8) -> None:
        self.writer = writer
        self._jobs: queue.Queue[_Job | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name='label writer', daemon=True)
        self._thread.start()

    def write(
        self,
        batch: range,
        scores: Tensor,
        classes: Tensor,
        sizes: Tensor,
        *,
        wait: Callable[[], None] = lambda: None,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """Hand in a batch, as for `LabelWriter.write`.

        Args:
            batch, scores, classes, sizes: tensors on the CPU; they must not change any more.
            wait: called in the thread before the tensors are read, such as to wait for copies from a GPU.
            written: called in the thread once the batch is on disk.

        Raises:
            whatever went wrong in the thread before.
        """
        self._raise()
        self._jobs.put(_Job(batch, (scores, classes, sizes), wait, written))

    def close(self) -> None:
        """Wait until everything is on disk.

        Raises:
            whatever went wrong in the thread.
        """
        self._finish()
        self._raise()

    def __enter__(self) -> 'BackgroundWriter':
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        self._finish()
        if kind is None:
            self._raise()

    def _finish(self) -> None:
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        waiting: list[_Job | None] = []
        while None not in waiting:
            waiting = [self._jobs.get()]
            with suppress(queue.Empty):
                while True:
                    waiting.append(self._jobs.get_nowait())
            # After an error the queue is still emptied, so that nobody who hands in a batch waits for ever.
            if self._error is None:
                try:
                    self._write([job for job in waiting if job is not None])
                except BaseException as error:
                    self._error = error

    def _write(self, jobs: list['_Job']) -> None:
        batches = []
        for job in jobs:
            job.wait()
            batches.append((job.batch, *(array.numpy() for array in job.arrays)))
        if batches:
            self.writer.write_all(batches)
        for job in jobs:
            job.written()


class _Job(NamedTuple):
    batch: range
    arrays: tuple[Tensor, Tensor, Tensor]
    wait: Callable[[], None]
    written: Callable[[], None]
