"""Which checkpoint a run resumes from when torchrun has started its processes anew."""

import logging
import os
from types import SimpleNamespace

import pytest

from tokenlabel.engine.resuming.restarts import resume_after_restart


@pytest.fixture
def started(tmp_path):
    """Whether a run told to start from weights resumes instead, once started `restarts` times at `launched` seconds."""

    def start(monkeypatch, restarts: int, launched: int) -> bool:
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', str(restarts))
        monkeypatch.setenv('LAUNCHED_AT', str(launched))
        runner = SimpleNamespace(
            work_dir=str(tmp_path), logger=logging.getLogger('test'), _resume=False, _load_from='weights.pth'
        )
        resume_after_restart(runner)
        assert (runner._resume, runner._load_from) in [(True, None), (False, 'weights.pth')]
        return runner._resume

    path = tmp_path / 'iter_2.pth'
    path.touch()
    os.utime(path, (1000, 1000))
    return start


def test_the_first_start_is_as_told(started, monkeypatch):
    assert not started(monkeypatch, restarts=0, launched=0)


def test_a_restart_resumes(started, monkeypatch):
    assert started(monkeypatch, restarts=1, launched=999)


def test_a_restart_before_the_first_checkpoint_leaves_those_of_another_run_alone(started, monkeypatch):
    assert not started(monkeypatch, restarts=1, launched=1001)
