"""How training shares the cores: `python -m motionexp.scripts.bench_threads [OVERRIDES]` (`make bench`).

One training runs with its threads as this package sets them, and one as OpenMP has them by default, in two
processes: on the machine as it is, and beside two processes that compute without a pause. All four alternate
in one run. Writes rows to `outputs/bench/threads/`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from motionexp.config.compose import load
from motionexp.config.threads import COUNTS, WAITING
from motionexp.diffusion.schedule import Window
from motionexp.jobs.job import Job, encode
from motionexp.methods.base import TrainingSettings
from motionexp.methods.lora import LoRA
from motionexp.methods.training import fit
from motionexp.results.rows import ROWS_NAME, Row
from motionexp.scripts.bench import DEFAULTS, Times, as_row, write
from motionexp.scripts.programs import exit_code

ROUNDS = 8
STEPS = 30
NEIGHBOURS = 2
TRAIN = "train"
OURS, DEFAULT = "as set here", "OpenMP's default"
# GOMP's own default where no variable is set: `settle_threads` leaves a variable that is set.
SPINNING = {"GOMP_SPINCOUNT": "300000"}
BUSY = "while True: sum(range(1000))"


def train(arguments: Sequence[str]) -> None:
    """Train `STEPS` steps for every line on stdin, and print the seconds of a step."""
    job = Job(load([*DEFAULTS, *arguments]), Console(quiet=True))
    example = encode(job.backbone, job.references[0])
    method = LoRA(job.backbone, Window(0))

    def seconds(steps: int) -> float:
        with TemporaryDirectory() as name:
            settings = TrainingSettings(steps, checkpoint_every=0)
            start = time.perf_counter()
            fit(job.backbone, method, [example], settings, Path(name), progress=False)
            return (time.perf_counter() - start) / steps

    seconds(2)  # the first steps are slow
    print("ready", flush=True)
    for _ in sys.stdin:
        print(seconds(STEPS), flush=True)


class Training:
    """A process that trains on request.

    Args:
        environment: of the process.
        arguments: overrides of a job.
    """

    def __init__(self, environment: dict[str, str], arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", __spec__.name, TRAIN, *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        while self._line() != "ready":
            pass

    def step_seconds(self) -> float:
        """Train now, and return the seconds of a step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the training ended with exit code {self._process.wait()}")
        return line.strip()

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@contextmanager
def busy_neighbours() -> Iterator[None]:
    """Two other processes compute as long as the context lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(NEIGHBOURS)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def ratios(trainings: Mapping[str, Training]) -> Times:
    """The seconds of a step of each training, alone and beside the neighbours, and their ratios."""
    idle = {name: training.step_seconds() for name, training in trainings.items()}
    with busy_neighbours():
        busy = {name: training.step_seconds() for name, training in trainings.items()}
    return [
        entry
        for name in trainings
        for entry in (
            ("idle_step_seconds", name, idle[name]),
            ("busy_step_seconds", name, busy[name]),
            ("busy_to_idle_ratio", name, busy[name] / idle[name]),
            ("idle_to_default_ratio", name, idle[name] / idle[DEFAULT]),
        )
    ]


def measure(arguments: Sequence[str]) -> list[Row]:
    """Time both trainings `ROUNDS` times, alternating."""
    job = Job(load([*DEFAULTS, *arguments]), Console(quiet=True))
    unset = {name: value for name, value in os.environ.items() if name not in (*COUNTS, *WAITING)}
    trainings: dict[str, Training] = {}
    try:
        for name, more in {OURS: {}, DEFAULT: SPINNING}.items():
            trainings[name] = Training({**unset, **more}, arguments)
        fields = {"method": "lora", "tau": 0.0, "steps": 0}
        return [
            replace(as_row(job, number, entry, **fields), suite="bench_threads")
            for number in range(ROUNDS)
            # The training that is timed first changes: what a round leaves behind meets both.
            for entry in ratios(dict(sorted(trainings.items(), reverse=number % 2 == 0)))
        ]
    finally:
        for training in trainings.values():
            training.end()


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Benchmark the model of the overrides (default: the bundled one) in fp32."""
    if arguments[:1] == [TRAIN]:
        with suppress(KeyboardInterrupt):
            train(arguments[1:])
        return
    cfg = load([*DEFAULTS, *arguments])
    write(measure(arguments), Path(cfg.output) / "threads" / ROWS_NAME)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
