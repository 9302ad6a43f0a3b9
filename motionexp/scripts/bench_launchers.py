"""Throughput of a sweep: `python -m motionexp.scripts.bench_launchers [ROUNDS]` (part of `make bench`).

The same sweep runs in two processes of one thread each, by joblib, and in one process of two threads. Both
alternate in one run, into new folders. It also takes the time of a task up to the end of the first training
step of a job: of the task's first job, from the start of its process, and of its second, from the end of the
first. Writes rows to `outputs/bench/launchers/`.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from motionexp.config.compose import load
from motionexp.config.threads import COUNTS
from motionexp.jobs.job import Job
from motionexp.results.rows import ROWS_NAME, Row
from motionexp.scripts.bench import DEFAULTS, Times, as_row, write
from motionexp.scripts.programs import exit_code

ROUNDS = 3
SWEEP = ("tau=0,700", "references=6", "train_steps=100", "steps=20", "edit_kinds=[multiple]", "device=cpu")
TWO, ONE = "2 processes of 1 thread", "1 process of 2 threads"
FIRST, SECOND = "first job of a task", "second job of a task"
LAUNCHED = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def run(folder: Path, words: Sequence[str], threads: int | None) -> tuple[float, float]:
    """Wall time and CPU time, in seconds, of `python run.py -m WORDS` in a new folder."""
    environment = {name: value for name, value in os.environ.items() if name not in COUNTS}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    before, start = _cpu_seconds(), time.perf_counter()
    command = [sys.executable, "-m", "motionexp", "-m", *words, *DEFAULTS[:1], f"output={folder}"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, _cpu_seconds() - before


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_step_seconds(folder: Path) -> tuple[float, float]:
    """Seconds to the end of the first training step of a task's first job, and of its second."""
    start = time.time()
    run(folder, ["tau=0,700", "train_steps=2", "keep_steps=[1]", "steps=2", "references=1"], 1)
    first, second = sorted(
        path.stat().st_mtime for path in folder.rglob("fit.json") if '"steps": 1,' in path.read_text()
    )
    ends = [path.stat().st_mtime for path in folder.rglob("status.json")]
    return first - start, second - max(end for end in ends if end < second)


def times(number: int) -> Times:
    """What is measured in a round; which sweep is first changes, for what a round leaves behind."""
    kinds = {TWO: (LAUNCHED, None), ONE: ((), 2)}
    seconds: dict[str, tuple[float, float]] = {}
    with TemporaryDirectory() as name:
        for part in sorted(kinds, reverse=number % 2 == 0):
            words, threads = kinds[part]
            seconds[part] = run(Path(name) / str(len(seconds)), [*words, *SWEEP], threads)
        of_first, of_second = first_step_seconds(Path(name) / "task")
    (two, _), (one, _) = seconds[TWO], seconds[ONE]
    return [
        *(("sweep_seconds", part, wall) for part, (wall, _) in seconds.items()),
        *(("sweep_cpu_seconds", part, cpu) for part, (_, cpu) in seconds.items()),
        ("throughput_ratio", TWO, one / two),
        ("first_step_seconds", FIRST, of_first),
        ("first_step_seconds", SECOND, of_second),
    ]


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Run the sweep a number of times each way."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    cfg = load(DEFAULTS)
    job = Job(cfg, Console(quiet=True))
    fields = {"method": "lora", "tau": 0.0, "steps": 0}
    rows: list[Row] = [
        replace(as_row(job, number, entry, **fields), suite="bench_launchers")
        for number in range(rounds)
        for entry in times(number)
    ]
    write(rows, Path(cfg.output) / "launchers" / ROWS_NAME)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
