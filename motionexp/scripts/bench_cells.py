"""What a cell costs, beside the code before: `python motionexp/scripts/bench_cells.py BEFORE [OVERRIDES]`.

BEFORE is a folder with a checkout of the commit to compare with. A cell is trained, sampled, decoded, scored
and written in one process with the code there and in one with the code here, in turns; CPU seconds count
from the end of the imports. Training is timed on a few steps of 8 references and multiplied. Writes rows to
`outputs/bench/cells/`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SERVE = "serve"
HERE = Path(__file__).resolve().parents[2]
MODELS = ("tiny_latte", "tiny_cogvideox", "tiny_unet3d")
ROUNDS = 3
REFERENCES, STEPS = 8, 8
BATCHED = (f"train_together={REFERENCES}", "memory_limit=64")
BEFORE, NOW, NOW_BATCHED = "before", "now", "now, in batches"
CELL = ("precision=fp32", "device=cpu", "base_model=false", "logger=csv")


def serve(arguments: Sequence[str]) -> None:
    """Time a cell for every line on stdin, a JSON list of overrides; print {stage: CPU seconds}."""
    measure_cell([*arguments, "train_steps=1", "steps=1"], 1)  # imports, and the first steps, are slow
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(measure_cell([*arguments, *json.loads(line)], STEPS)), flush=True)


def measure_cell(overrides: Sequence[str], steps: int) -> dict[str, float]:
    """CPU seconds of a training step of a reference, of the rest of a cell, and of the cell in all."""
    from motionexp.config.compose import load  # of the code that is measured

    # 1. A few training steps of all references, with one short sample.
    edits = 'edits=["a red plain star is moving on ice"]'
    _, fit = _run([*overrides, f"references={REFERENCES}", f"train_steps={steps}", "steps=1", edits])
    step = fit / (REFERENCES * steps)
    # 2. A cell with its four edits, without what its training takes.
    total, fit = _run([*overrides, "references=1", "train_steps=1"])
    train_steps = load(list(overrides)).train_steps
    return {"step": step, "rest": total - fit, "cell": total - fit + step * train_steps}


def _run(overrides: Sequence[str]) -> tuple[float, float]:
    """CPU seconds of a job, and of the trainings in it."""
    from motionexp.config.compose import load
    from motionexp.jobs import job
    from motionexp.jobs.run import run

    modules: list[Any] = [job]
    with suppress(ImportError):  # the code before has no trainings in one batch
        from motionexp.jobs import together

        modules.append(together)
    spent = []

    def timed(fit: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            start = time.process_time()
            try:
                return fit(*arguments, **settings)
            finally:
                spent.append(time.process_time() - start)

        return call

    originals = [(module, module.fit) for module in modules]
    for module, fit in originals:
        module.fit = timed(fit)
    try:
        with TemporaryDirectory() as folder, open(os.devnull, "w") as silence:
            printed, sys.stdout = sys.stdout, silence
            try:
                start = time.process_time()
                run(load([*CELL, *overrides, f"output={folder}"]))
                return time.process_time() - start, sum(spent)
            finally:
                sys.stdout = printed
    finally:
        for module, fit in originals:
            module.fit = fit


class Code:
    """A process that times cells of one model on request, with the code of a checkout."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, __file__, SERVE, *arguments],
            env=environment,
            cwd=folder,
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        while self._line() != "ready":
            pass

    def cell(self, overrides: Sequence[str]) -> dict[str, float]:
        """CPU seconds by stage."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(overrides) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with exit code {self._process.wait()}")
        return line.strip()

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def rounds(before: Path, arguments: Sequence[str]) -> Iterator[tuple[int, Mapping[str, dict[str, float]]]]:
    """(number, {variant: seconds by stage}) of each round, the variants in turns."""
    processes: list[Code] = []
    try:
        for folder in (before, HERE):
            processes.append(Code(folder, arguments))
        old, new = processes
        variants = {BEFORE: (old, ()), NOW: (new, ()), NOW_BATCHED: (new, BATCHED)}
        for number in range(ROUNDS):
            yield number, {name: code.cell(overrides) for name, (code, overrides) in variants.items()}
    finally:
        for process in processes:
            process.end()


def main(arguments: Sequence[str]) -> None:
    """Benchmark the bundled models."""
    from dataclasses import replace

    from rich.console import Console

    from motionexp.config.compose import load
    from motionexp.jobs.job import Job
    from motionexp.results.rows import ROWS_NAME, Row
    from motionexp.scripts.bench import DEFAULTS, as_row, write

    before, *overrides = arguments

    def rows() -> Iterator[Row]:
        for model in MODELS:
            job = Job(load([*DEFAULTS, f"model={model}", *overrides]), Console(quiet=True))
            fields = {"method": "lora", "tau": 0.0, "steps": job.plan.sampling.sampler.steps}
            for number, seconds in rounds(Path(before).resolve(), [f"model={model}", *overrides]):
                for name, stages in seconds.items():
                    ratio = stages["cell"] / seconds[BEFORE]["cell"]
                    entries = {f"{stage}_cpu_seconds": value for stage, value in stages.items()}
                    for metric, value in {**entries, "cell_ratio": ratio}.items():
                        row = as_row(job, number, (metric, f"{model}, {name}", value), **fields)
                        yield replace(row, suite="bench_cells", strata={"part": name})

    write(rows(), Path(load([*DEFAULTS]).output) / "cells" / ROWS_NAME)


if __name__ == "__main__":
    if sys.argv[1] == SERVE:
        serve(sys.argv[2:])
    else:
        sys.path[0] = str(HERE)  # the rows name the commit of this checkout
        main(sys.argv[1:])
