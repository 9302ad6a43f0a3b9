"""A sweep of small cells, its rows published and its table built: what `tests.chaos` disturbs.

Every process of it is forked from one that has imported torch, which takes seconds.
"""

import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas  # noqa: F401  # what a sweep imports late would be imported by each of its processes
import pyarrow.parquet  # noqa: F401

from motionexp import files
from motionexp.config import metrics
from motionexp.config.schema import JobConfig
from motionexp.errors import stoppable
from motionexp.jobs import cell, job, loggers, provenance  # noqa: F401
from motionexp.jobs.cell import Cell
from motionexp.jobs.failures import CellsFailed
from motionexp.jobs.machine import DiskError
from motionexp.jobs.run import run
from motionexp.methods.training import Tuning
from motionexp.metrics.scorer import Scorer
from motionexp.results import compaction
from motionexp.results.publish import publish
from motionexp.results.rows import read_lines
from motionexp.results.tables import main as tables
from tests.support.squares import SQUARE_METRICS
from tests.support.tiny_jobs import job_settings
from tests.support.tiny_models import FRAMES, SIZE

LAYOUT = """question: Which?
cost: nothing
rows: results/chaos.parquet
sweep: []
select: {{suite: squares}}
settings:
{settings}
columns:
  brightness: {{label: brightness, metric: brightness}}
tables:
  - file: results/chaos
    title: Chaos
    labels: [tau]
    settings: [{names}]
    columns: [brightness]
    groups: [{{title: all}}]
"""
STAGES = ("training", "sampling", "scoring", "rows", "files", "publishing")
SCORES_OF_A_CELL = 2
"""One edit, two values of brightness."""
REFERENCES = 3


@dataclass(frozen=True)
class Sweep:
    """A sweep over tau of three references.

    Attributes:
        weights: of the model.
        taus: one job each.
    """

    weights: Path
    taus: Sequence[int]

    def jobs(self, output: Path, order: int) -> list[JobConfig]:
        """The jobs, in another order for each number."""
        size = FRAMES, SIZE, SIZE
        make = partial(job_settings, "motionexp.backbones.latte.LatteBackbone", self.weights, size)
        changes = {"references": REFERENCES, "edits": ["red"], "train_steps": 3, "checkpoint_every": 1}
        jobs = [make(output=str(output), tau=float(tau), **changes) for tau in self.taus]
        random.Random(order).shuffle(jobs)
        return jobs

    def run(self, root: Path, order: int = 0) -> None:
        """Run all jobs, publish their rows and build the table."""
        failed: CellsFailed | None = None
        for cfg in self.jobs(root / "outputs", order):
            try:
                run(cfg)
            except CellsFailed as error:
                failed = error
        if failed is not None:
            raise failed
        layout = root / "experiments" / "chaos.yaml"
        publish(layout, root / "outputs")
        assert tables([str(layout)]) == 0

    def prepared(self, root: Path) -> Path:
        """A folder with the experiment."""
        lines = [
            f'  t{tau}: {{labels: ["{tau}"], select: {{tau: "{tau}", train_steps: "3"}}}}'
            for tau in self.taus
        ]
        names = ", ".join(f"t{tau}" for tau in self.taus)
        (root / "experiments").mkdir(parents=True)
        text = LAYOUT.format(settings="\n".join(lines), names=names)
        (root / "experiments" / "chaos.yaml").write_text(text)
        os.chmod(root, 0o777)
        return root


@dataclass(frozen=True)
class Event:
    """What happens to a process at a moment: a signal at the `count`-th step of a stage, or a limit.

    Attributes:
        kind: a signal's name, or `files` or `size` for a limit on open files or on the size of a file, or
            `folder` where the output becomes unwritable.
        stage: one of `STAGES`.
        count: of the stage's steps, from 1.
        delay: seconds after that step begins.
    """

    kind: str = ""
    stage: str = "training"
    count: int = 1
    delay: float = 0.0


def settle() -> None:
    """Metrics that cost nothing, small media, and compaction after each job."""
    metrics.METRICS = metrics.METRICS | SQUARE_METRICS
    cell.enlarged = lambda frames: frames  # type: ignore[assignment]
    cell.contact_sheet = lambda frames: frames[0]  # type: ignore[assignment]
    assert compaction.compact.__kwdefaults__
    compaction.compact.__kwdefaults__["least_bytes"] = 0
    files.UNREADABLE = 0.2
    provenance.commit = lambda: ("c" * 40, False)  # whatever is committed here meanwhile
    os.environ["TQDM_DISABLE"] = "1"
    warnings.simplefilter("ignore")


def _send(kind: str, root: Path) -> None:
    os.kill(os.getpid(), getattr(signal, kind))


def _limit_files(kind: str, root: Path) -> None:
    free = os.open(os.devnull, os.O_RDONLY)  # the lowest number
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _limit_size(kind: str, root: Path) -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # the log is longer already
    os.dup2(sys.stdout.fileno(), 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))


def _lock_folder(kind: str, root: Path) -> None:
    for folder in [root / "outputs", *(root / "outputs").rglob("*/")]:
        os.chmod(folder, 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)  # whom modes hold for


LIMITS = {"files": _limit_files, "size": _limit_size, "folder": _lock_folder}


def disturb(event: Event, root: Path) -> None:
    """Make an event come."""
    calls: Counter[str] = Counter()

    def happen() -> None:
        time.sleep(event.delay)
        LIMITS.get(event.kind, _send)(event.kind, root)

    def watched(stage: str, original: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **named: object) -> object:
            calls[stage] += 1
            if stage == event.stage and calls[stage] == event.count:
                if event.delay and event.kind.startswith("SIG"):
                    threading.Thread(target=happen, daemon=True).start()
                else:
                    happen()
            return original(*arguments, **named)

        return wrapped

    Tuning.training_step = watched("training", Tuning.training_step)  # type: ignore[method-assign]
    Cell.save_sample = watched("sampling", Cell.save_sample)  # type: ignore[method-assign]
    Scorer.score = watched("scoring", Scorer.score)  # type: ignore[method-assign]
    Cell.add_rows = watched("rows", Cell.add_rows)  # type: ignore[method-assign]
    os.replace = watched("files", os.replace)  # type: ignore[assignment]
    globals()["publish"] = watched("publishing", publish)


def start(sweep: Sweep, root: Path, event: Event = Event(), order: int = 0, log: str = "log") -> int:
    """Fork a process that runs the sweep; returns its id. Its output and the cells it trains are in files."""
    if child := os.fork():
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        with open(root / log, "a", buffering=1) as file, redirect_stdout(file):
            os.dup2(file.fileno(), sys.stderr.fileno())
            count_fits(root)
            if event.kind:
                disturb(event, root)
            with stoppable():
                code = _outcome(lambda: sweep.run(root, order))
    finally:
        os._exit(code)


def _outcome(work: Callable[[], None]) -> int:
    """The exit code of the command."""
    try:
        work()
    except (CellsFailed, DiskError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        for failure in getattr(error, "failures", ()):
            print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        raise
    return 0


def count_fits(root: Path) -> None:
    """Write the name of each cell whose training begins, and of each that ends, into a file."""
    original = job.fit

    def fit(*arguments: object, **named: object) -> object:
        name = arguments[4].parent.name  # type: ignore[attr-defined]
        with open(root / "fits", "a") as file:
            file.write(f"begin {name}\n")
        result = original(*arguments, **named)  # type: ignore[arg-type]
        with open(root / "fits", "a") as file:
            file.write(f"end {name}\n")
        return result

    job.fit = fit  # type: ignore[assignment]


def wait(process: int, seconds: float = 120) -> int:
    """The exit code of a process, negative for a signal. A process that does not end is a failure."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise AssertionError(f"process {process} did not end in {seconds} s: a deadlock")


def writable(root: Path) -> None:
    """Undo what `folder` did."""
    for folder in [root / "outputs", *(root / "outputs").rglob("*/")]:
        os.chmod(folder, 0o755)


def check(root: Path, whole: Path) -> None:
    """Every row once and equal to the bit, the tables byte for byte, and nothing left over."""
    assert scores_in(root) == scores_in(whole)
    for suffix in (".md", ".csv"):
        name = f"results/chaos{suffix}"
        texts = [(folder / name).read_text() for folder in (root, whole)]
        assert texts[0] == texts[1], f"the tables differ:\n{texts[0]}\n{texts[1]}"
    assert names_in(root) == names_in(whole), names_in(root) ^ names_in(whole)


def scores_in(root: Path) -> dict[str, object]:
    """{score id: value} of all rows in the cells, each of which stands once."""
    rows = [line for path in (root / "outputs").rglob("rows.jsonl") for _, line in read_lines(path)]
    scores = {row["score_id"]: row["value"] for row in rows}
    assert len(scores) == len(rows), "a row stands twice"
    return scores


def names_in(root: Path) -> set[str]:
    """The files below `outputs/` and `results/`.

    Each start of a training has a curve of its own. Records of finished jobs have names of their folder.
    """
    paths = [path for part in ("outputs", "results") for path in (root / part).rglob("*") if path.is_file()]
    names = {path.relative_to(root).as_posix() for path in paths if not {"finished", "logs"} & {*path.parts}}
    assert not [name for name in names if name.endswith((".lock", ".break")) or files.PARTIAL in name]
    return names


def trained(root: Path, word: str = "end") -> Counter[str]:
    """How often the training of each cell began, or ended."""
    lines: Sequence[str] = (root / "fits").read_text().splitlines() if (root / "fits").exists() else []
    return Counter(line.split()[1] for line in lines if line.split()[0] == word)
