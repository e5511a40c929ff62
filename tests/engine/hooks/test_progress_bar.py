"""The bar below the log lines of a training."""

import io
import logging
import sys

import pytest
from rich.console import Console

from tokenlabel.engine.hooks import progress_bar as progress


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    """What a terminal of 160 columns shows."""
    shown = io.StringIO()
    monkeypatch.setattr(progress, 'Console', lambda: Console(file=shown, force_terminal=True, width=160))
    return shown


def test_a_terminal_shows_iterations_speed_and_time_left(make_runner, terminal):
    make_runner(iterations=3, custom_hooks=[{'type': 'ProgressBar'}]).train()
    assert '3/3' in terminal.getvalue()
    assert 'images/s' in terminal.getvalue()
    assert 'Validating' in terminal.getvalue()


def test_log_lines_go_above_the_bar_and_the_terminal_is_given_back(make_runner, terminal):
    runner = make_runner(iterations=3, custom_hooks=[{'type': 'ProgressBar'}])
    handler = logging.StreamHandler(sys.stdout)
    runner.logger.addHandler(handler)
    bar = next(hook for hook in runner.hooks if isinstance(hook, progress.ProgressBar))
    bar.before_train(runner)
    handler.stream.write('a line of the log\n')
    assert 'a line of the log' in terminal.getvalue()
    bar.after_train(runner)
    assert handler.stream is sys.stdout


def test_a_log_file_gets_no_bar(make_runner, monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(progress, 'Console', lambda: Console(file=written))
    make_runner(iterations=1, custom_hooks=[{'type': 'ProgressBar'}]).train()
    assert written.getvalue() == ''
