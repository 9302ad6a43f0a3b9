"""The same sweep by several launchers at once (`make test-joblib`)."""

import importlib.util
import json
import time

import pytest

from tests.engines.sweeps import rows_of, start

NEEDED = ("joblib", "submitit")
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.launcher.tasks=3"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.tasks=2"],
}
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        any(importlib.util.find_spec(package) is None for package in NEEDED),
        reason=f"needs {' and '.join(NEEDED)}",
    ),
]


def test_no_cell_is_done_twice_and_each_row_is_there_once(tmp_path):
    words = ["-m", "tau=0,700", "references=3", "train_steps=20", "base_model=true"]
    processes = {name: start(tmp_path, *words, *way) for name, way in LAUNCHERS.items()}
    adapters: set[tuple[str, int]] = set()  # a training writes a new file, with a number of its own
    while any(process.poll() is None for process in processes.values()):
        paths = tmp_path.rglob("adapter/adapter.safetensors")
        adapters |= {(path.parent.parent.name, path.stat().st_ino) for path in paths}
        time.sleep(0.05)
    for name, process in processes.items():
        _, errors = process.communicate()
        assert process.returncode == 0, (name, errors)
    assert len({cell for cell, _ in adapters}) == len(adapters) == 6
    scores = [json.loads(row)["score_id"] for row in rows_of(tmp_path)]
    assert len(scores) == len(set(scores)) > 0
