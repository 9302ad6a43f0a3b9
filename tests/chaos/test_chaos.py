"""The short form of `make chaos`, in a process of its own, from which others fork."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_sweep_is_killed_and_run_twice_at_once_and_every_row_is_there_once():
    done = subprocess.run(
        # With this seed each kill is in another cell, and no sweep is through before its kill comes.
        [sys.executable, "-m", "tests.chaos", "3", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "SIGKILL: 3 kills in 1 sweeps" in done.stdout
    assert "two sweeps at once" in done.stdout
