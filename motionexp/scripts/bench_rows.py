"""How fast many rows are read and tabulated: `python -m motionexp.scripts.bench_rows` (`make bench`).

Made rows of a sweep over tau: cells of 16 samples with 20 scores each. Every stage runs in a process of its
own, whose CPU seconds and peak memory are measured. Writes rows to `outputs/bench/rows/`.
"""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from motionexp.config.compose import load
from motionexp.config.ids import score_id
from motionexp.config.metrics import METRICS
from motionexp.results.compaction import COMPACTED, compact
from motionexp.results.rows import ROWS_NAME, Row, append_rows, read_rows
from motionexp.results.settings_table import settings_tables
from motionexp.scripts.programs import exit_code

COUNTS = (10_000, 100_000, 1_000_000)
ROUNDS = 3
TAUS = (0.0, 650.0, 700.0, 750.0, 1000.0)
SCORES = [name for spec in METRICS.values() for name in spec.values][:20]
EDITS = ("background", "object", "style", "multiple")
SEEDS = 4
IN_A_CELL = len(SCORES) * len(EDITS) * SEEDS
SHOWN = "velocity_similarity|nuisance_similarity|nuisance_chance|text_alignment"


def made_cell(number: int, first: Row) -> list[Row]:
    """The rows of a cell: of every reference one for each tau."""
    reference, tau = divmod(number, len(TAUS))
    name, value = f"{number:012x}", TAUS[tau]
    rows = []
    for edit in EDITS:
        for seed in range(SEEDS):
            sample = f"{name}-{edit}-{seed}"
            of_sample = replace(
                first,
                reference=f"{reference:04d}",
                reference_hash=f"{reference:064x}",
                edit_kind=edit,
                edit_caption=f"a caption of {reference} in another {edit}",
                seed=seed,
                sample_id=sample,
                adapter_id=name,
                sample_file=f"shapes/tiny_latte/{name}/media/{sample}.mp4",
                seconds={"fit": 8.5, "sample": 1.25 + number / 1000, "score": 0.5},
                tau=value,
                method="base" if value == 1000 else "lora",
                settings=first.settings | {"tau": value},
            )
            rows += [
                replace(of_sample, metric=metric, value=(number * 7 + seed * 3 + place) % 101 / 100,
                        score_id=score_id(sample, metric=metric, version=1))
                for place, metric in enumerate(SCORES)
            ]  # fmt: skip
    return rows


def write_cells(folder: Path, cells: Sequence[int]) -> None:
    """Write the files of some cells as jobs write them."""
    cfg = load(["model=tiny_latte", "device=cpu", "precision=fp32"])
    settings = json.loads(json.dumps(asdict(cfg)))
    first = Row(
        metric="",
        metric_version=1,
        value=0.0,
        suite="shapes",
        reference="",
        strata={"split": "benchmark", "contrast": "motion-dominant", "motion": "captioned"},
        model="tiny_latte",
        method="lora",
        tau=700.0,
        steps=50,
        train_steps=100,
        versions={"training": 2, "sampling": 2},
        settings=settings,
        packages={"torch": "2.15.0", "diffusers": "0.42.1", "motionexp": "0.1.0"},
        precision="fp32",
        weights_hash="w" * 64,
    )
    for number in cells:
        append_rows(folder / f"{number:012x}" / ROWS_NAME, made_cell(number, first))


def _read(output: Path) -> int:
    return len(read_rows(output))


def _select(output: Path) -> int:
    return len(read_rows(output, {"metric": SHOWN, "tau": "700"}))


def _table(output: Path) -> int:
    return len(settings_tables(read_rows(output), ["tau"], "by tau"))


STAGES: Mapping[str, Callable[[Path], int]] = {"read": _read, "select": _select, "table": _table}


def measured(stage: str, output: Path) -> tuple[float, float]:
    """CPU seconds and peak MB of a stage in a process of its own, the imports' share of the time left out."""
    command = [sys.executable, "-m", "motionexp.scripts.bench_rows", stage, str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def _peak() -> float:
    """The most bytes of this process; not those of its parent, which the system counts for a new process."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024.0 * int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


def measure(folder: Path, counts: Sequence[int]) -> Iterator[Row]:
    """The rows of all stages and numbers of rows; cells are added from number to number."""
    from motionexp.backbones.precision import resolve_device
    from motionexp.jobs.provenance import commit, device_name  # which imports torch

    head, dirty = commit()
    about = Row(metric="", metric_version=1, value=0.0, suite="bench_rows", reference="made", model="rows",
                method="base", tau=1000.0, steps=0, commit=head, dirty=dirty,
                device=device_name(resolve_device("cpu")))  # fmt: skip
    of_model, done = folder / "shapes" / "tiny_latte", 0
    for count in counts:
        write_cells(of_model, range(done, count // IN_A_CELL))
        done = count // IN_A_CELL
        start = time.process_time()
        compact(of_model, least_bytes=0)
        values = {"compact_seconds": time.process_time() - start}
        values["columnar_megabytes"] = (of_model / COMPACTED).stat().st_size / 1e6
        values["lines_megabytes"] = sum(p.stat().st_size for p in of_model.glob(f"*/{ROWS_NAME}")) / 1e6
        for number in range(ROUNDS):
            for stage in STAGES:
                values[f"{stage}_seconds"], values[f"{stage}_megabytes"] = measured(stage, folder)
            for metric, value in values.items():
                yield replace(
                    about, metric=metric, value=value, seed=number, strata={"part": f"{count:,} rows"}
                )


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Measure; or, named a stage and a folder, be the process that is measured."""
    if arguments and arguments[0] in STAGES:
        start = time.process_time()
        STAGES[arguments[0]](Path(arguments[1]))
        print(json.dumps([time.process_time() - start, _peak() / 1e6]))
        return
    from motionexp.scripts.bench import DEFAULTS, write

    with TemporaryDirectory() as name:
        counts = [int(count) for count in arguments] or COUNTS
        write(measure(Path(name), counts), Path(load([*DEFAULTS]).output) / "rows" / ROWS_NAME)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
