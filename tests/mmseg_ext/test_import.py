"""Importing prints nothing."""

import subprocess
import sys


def test_importing_mmseg_ext_prints_nothing():
    run = subprocess.run([sys.executable, '-c', 'import mmseg_ext'], capture_output=True, text=True, check=True)
    assert run.stdout + run.stderr == ''
