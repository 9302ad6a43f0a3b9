"""Run jobs in a process of its own; print what it has imported before, and the memory that each job added.

`python -m tests.support.memory_job "[[WEIGHTS, FRAMES, SIZE, OUTPUT, SETTINGS], ...]"`; the first job is
there so that all is imported which a job imports. A line is `imported MODULE`, `frozen OBJECTS` (once after
the libraries are imported and once after they are imported again), or `peak BYTES` of a job.
"""

import gc
import json
import re
import sys
from pathlib import Path
from typing import Any

from motionexp.config import metrics
from motionexp.config.schema import JobConfig
from motionexp.jobs.run import run
from motionexp.jobs.waiting import loading_libraries
from tests.support.squares import METRICS, SQUARE_METRICS
from tests.support.tiny_jobs import job_settings

LATTE = "motionexp.backbones.latte.LatteBackbone"
PROCESS = Path("/proc/self")


def settings(weights: str, frames: int, size: int, output: str, changes: dict[str, Any]) -> JobConfig:
    """A job of two training steps and one sample."""
    small = {"memory_limit": 1e-9, "edits": ["b"], "steps": 1, **changes}
    return job_settings(LATTE, Path(weights), (frames, size, size), output=output, metrics=METRICS, **small)


def resident(what: str) -> int:
    """VmRSS (now) or VmHWM (the most so far) of this process, in bytes."""
    line = re.search(rf"{what}:\s+(\d+) kB", (PROCESS / "status").read_text())
    assert line is not None
    return int(line[1]) * 1024


def main(jobs: list[list[Any]]) -> None:
    """See the module."""
    later: list[list[int]] = []
    for _ in range(2):
        with loading_libraries():
            from motionexp.jobs.job import give_memory_back  # what a job imports at its start
        print("frozen", gc.get_freeze_count() if gc.isenabled() else 0)
        later += [[] for _ in range(1000)]
    for module in sys.modules:
        print("imported", module)
    metrics.METRICS.update(SQUARE_METRICS)
    for job in jobs:
        give_memory_back()
        (PROCESS / "clear_refs").write_text("5")  # from now on the most so far is what there is now
        before = resident("VmRSS")
        run(settings(*job))
        print("peak", resident("VmHWM") - before)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
