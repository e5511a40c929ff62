"""The one progress bar, of all commands: what is done, how fast of late, and the time left."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


def progress_bar(console: Console, *more: ProgressColumn, **options: object) -> Progress:
    """A bar for tasks whose steps are images, unless a task says otherwise by its fields.

    Args:
        console: to draw on.
        more: columns after the usual ones.
        options: of `rich.progress.Progress`.
    """
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), ImagesPerSecond())
    return Progress(*columns, TimeRemainingColumn(), *more, console=console, **options)


class ImagesPerSecond(ProgressColumn):
    """Speed of late. The field `images_per_step` is the number of images in a step: 1 unless given, 0 for none."""

    def render(self, task: Task) -> Text:
        images = task.fields.get('images_per_step', 1)
        if task.speed is None or not images:
            return Text('')
        return Text(f'{task.speed * images:.0f} images/s')
