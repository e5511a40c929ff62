"""The progress bar of all commands: finished steps, current speed and remaining time."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


def progress_bar(console: Console, *more: ProgressColumn, **options: object) -> Progress:
    """A progress bar with a column of `ImagesPerSecond`.

    Args:
        console: console to draw on.
        more: additional columns on the right.
        options: arguments of `rich.progress.Progress`.
    """
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), ImagesPerSecond())
    return Progress(*columns, TimeRemainingColumn(), *more, console=console, **options)


class ImagesPerSecond(ProgressColumn):
    """Current speed in images/s. A task's field `images_per_step` (default: 1) is 0 if its steps are not images."""

    def render(self, task: Task) -> Text:
        images = task.fields.get('images_per_step', 1)
        if task.speed is None or not images:
            return Text('')
        return Text(f'{task.speed * images:.0f} images/s')
