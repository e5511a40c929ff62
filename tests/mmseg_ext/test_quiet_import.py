"""Importing prints nothing, and holds back nothing but the two known remarks."""

import subprocess
import sys

from mmseg_ext.quiet_import import import_quietly


def test_importing_mmseg_ext_prints_nothing():
    run = subprocess.run([sys.executable, '-c', 'import mmseg_ext'], capture_output=True, text=True, check=True)
    assert run.stdout + run.stderr == ''


def test_anything_else_that_a_module_prints_is_shown(tmp_path, monkeypatch, capsys):
    (tmp_path / 'talkative.py').write_text('print("Could not import OneDL")\nprint("Something new")\n')
    monkeypatch.syspath_prepend(tmp_path)
    import_quietly('talkative')
    assert capsys.readouterr().out == 'Something new\n'
