"""How far a job of the page is, from its cells' files, and what it costs before it begins. No torch."""

import csv
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from motionexp.config.job_settings import base_settings
from motionexp.config.schema import JobConfig, trains
from motionexp.data.select import make_reader, names_of
from motionexp.errors import InputError
from motionexp.files import ROOT, user_path
from motionexp.jobs.costs import Rates, cell_cost
from motionexp.jobs.pages.ui.queue import UiJob
from motionexp.results.cell_state import DONE, STATUS, CellState, Progress, read_state
from motionexp.results.formats import duration
from motionexp.results.rows import ROWS_NAME, Row, read_rows

MOST_CELLS = 20
"""Finished cells from whose seconds the cost of a new one is estimated."""
MEASURED = "results/bench/cells.csv"
START = 10.0
"""Seconds that a process takes to import its libraries."""
STAGES = {"fit": "training", "sample": "sampling", "score": "scoring"}


@dataclass(frozen=True)
class JobProgress:
    """How far a job is.

    Attributes:
        share: of its work that is done, 0 to 1.
        doing: what it does now, in words.
        left: seconds until it ends, by what its work took so far; None: not known yet.
    """

    share: float
    doing: str
    left: float | None


def job_progress(job: UiJob) -> JobProgress:
    """How far a running job is."""
    cells = cells_of(job)
    worked = [cell for cell in cells if cell.progress is not None]
    if not worked:
        lines = job.printed().splitlines()
        return JobProgress(0.0, lines[-1] if lines else "starting", None)
    tuned, base = _costs(job.cfg)
    done = sum(_done(cell, base if _is_base(cell) else tuned) for cell in cells)
    share = min(1.0, done / (sum(tuned) + (sum(base) if job.cfg.base_model else 0.0)))
    last = max((cell.progress for cell in worked if cell.progress), key=lambda progress: progress.time)
    seconds = sum(cell.progress.seconds for cell in worked if cell.progress)
    left = seconds * (1 - share) / share if share > 0.02 else None
    return JobProgress(share, _in_words(last), left)


def cells_of(job: UiJob) -> list[CellState]:
    """The cells on which a job's process works, or has worked."""
    host = socket.gethostname()
    states = []
    for path in _cells(job.cfg):
        try:
            state = read_state(path)
        except (InputError, OSError):
            continue  # it is being written
        if state.about.get("pid") == job.pid and state.host == host:
            states.append(state)
    return states


def _cells(cfg: JobConfig) -> Iterator[Path]:
    """The folders of the cells of a job's suite and model."""
    folder = user_path(cfg.output) / make_reader(cfg.data).suite / cfg.model.name
    return (path.parent for path in folder.glob(f"*/{STATUS}"))


def _is_base(cell: CellState) -> bool:
    return cell.about.get("tau") == 1000


Costs = tuple[float, float]
"""Of the training, and of the samples, of a cell."""


def _costs(cfg: JobConfig, rates: Rates | None = None) -> tuple[Costs, Costs]:
    """The costs of the tuned cell and of the base model's; without rates in passes through the network."""
    rates = rates or Rates()
    reader = make_reader(cfg.data)
    name = names_of(cfg, reader)[0]
    training = cfg.train_steps * cfg.batch_size * rates.training if trains(cfg) else 0.0
    tuned = cell_cost(cfg, name, rates, reader)
    return (training, tuned - training), (0.0, cell_cost(base_settings(cfg), name, rates, reader))


def _done(cell: CellState, costs: Costs) -> float:
    """The cost of what is done of a cell."""
    training, sampling = costs
    if cell.state == DONE:
        return training + sampling
    progress = cell.progress
    if progress is None:
        return 0.0
    share = progress.step / progress.steps if progress.steps else 0.0
    if progress.stage == "fit":
        return training * share
    return training + (sampling * share if progress.stage == "sample" else sampling)


def _in_words(progress: Progress) -> str:
    words = f"{STAGES.get(progress.stage, progress.stage)}: {progress.step} of {progress.steps}"
    return f"{words}, loss {progress.loss:.3f}" if progress.loss is not None else words


def estimate_in_words(cfg: JobConfig) -> str:
    """What the job takes: by the last finished cells of its model here, or by published measurements."""
    rates = Rates.of(_last_rows(cfg))
    if rates.is_measured:
        tuned, base = _costs(cfg, rates)
        seconds = START + sum(tuned) + (sum(base) if cfg.base_model else 0.0)
        return f"Time: about {duration(seconds)}, by the last jobs of {cfg.model.name} here."
    if (published := _published_seconds(cfg)) is not None:
        about = "of CPU time, by the published measurements (fp32, one thread)"
        return f"Time: about {duration(START + published)} {about}."
    return (
        f"Time: not known before a job of {cfg.model.name} is done. Estimate measures it, and trains nothing."
    )


def _published_seconds(cfg: JobConfig) -> float | None:
    """CPU seconds of a cell of a bundled model with as many training steps; None: not published."""
    if not (ROOT / MEASURED).exists():
        return None
    with (ROOT / MEASURED).open(newline="") as file:
        means = {
            line["column"]: float(line["mean"])
            for line in csv.DictReader(file)
            if (line["block"], line["setting"]) == (cfg.model.name, "now") and line["mean"]
        }
    if not {"step", "rest"} <= means.keys():
        return None
    return means["rest"] + (means["step"] * cfg.train_steps if trains(cfg) else 0.0)


def _last_rows(cfg: JobConfig) -> Iterator[Row]:
    files = [path / ROWS_NAME for path in _cells(cfg) if (path / ROWS_NAME).exists()]
    for path in sorted(files, key=lambda file: file.stat().st_mtime)[-MOST_CELLS:]:
        try:
            yield from read_rows(path)
        except (InputError, OSError):
            continue  # a damaged file is no reason to give no estimate
