"""The progress bar of annotation."""

import time

from rich.console import Console
from rich.progress import TextColumn

from tokenlabel.labels.annotator.annotation import Tally
from tokenlabel.labels.store import LabelWriter
from tokenlabel.processes.progress import progress_bar

SECONDS_BETWEEN_UPDATES = 0.5
SECONDS_BETWEEN_LINES = 60.0


class AnnotationBar:
    """Bar with the maps in the store from all processes, their speed, the time left, and the top-1 of this process.

    Use it in a `with` block. In a log file, which cannot be redrawn, it prints a line per minute instead.

    Args:
        writer: the store being written.
        console: console to draw on.
        shown: whether to draw; only one of the processes does.
    """

    def __init__(self, writer: LabelWriter, console: Console, shown: bool = True) -> None:
        self.writer = writer
        self._progress = progress_bar(console, TextColumn('{task.fields[top1]}'), disable=not shown)
        done = writer.num_done
        self._task = self._progress.add_task('Annotating', total=len(writer.keys), completed=done, top1='')
        self._last = 0.0
        self._lines = not console.is_terminal
        self._last_line = self._begun = time.monotonic()
        self._done_before = done

    def update(self, tally: Tally) -> None:
        """Draws the progress, at most twice a second, because counting looks at every shard."""
        now = time.monotonic()
        if self._progress.disable or now - self._last < SECONDS_BETWEEN_UPDATES:
            return
        self._last = now
        self._draw(tally)
        if self._lines and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            task = self._progress.tasks[0]
            speed = (task.completed - self._done_before) / (now - self._begun)
            self._progress.console.print(
                f'{task.completed:.0f} of {task.total:.0f} maps, {speed:.0f} images/s {task.fields["top1"]}'.rstrip()
            )

    def finish(self, tally: Tally) -> None:
        """Draws the final state."""
        if not self._progress.disable:
            self._draw(tally)

    def __enter__(self) -> 'AnnotationBar':
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def _draw(self, tally: Tally) -> None:
        top1 = '' if tally.top1 is None else f'top-1 {tally.top1:.1f} % of {tally.labelled.total():,} images'
        self._progress.update(self._task, completed=self.writer.num_done, top1=top1)
