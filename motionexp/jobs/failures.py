"""Failed cells: they do not stop the other cells of a job, and a table of them ends the job or the sweep."""

import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

from motionexp.config.json_file import read_object
from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.jobs.machine import DISK_ERRORS, FILES_ERRORS, DiskError
from motionexp.results.formats import Grid, printable

LOG_FILE = "error.log"
STATUS_FILE = "status.json"
STOPS = (KeyboardInterrupt, SystemExit, BrokenPipeError)
"""What the user, the system or the reader of the output ends a process by."""
# Every other cell would fail as well.
EVERY_CELLS = (*DISK_ERRORS, *FILES_ERRORS)
REFUSED = 2
"""The exit code of wrong input."""
AGAIN = "the same command again runs what failed or is missing, and nothing else"
LONGEST_ERROR = 300
"""Characters of an error in the table."""


@dataclass(frozen=True)
class Failure:
    """A cell or a job that failed.

    Attributes:
        cell: the cell's folder, or the overrides of a job that failed as a whole.
        error: in one line.
        log: the file with the traceback; empty if there is none.
        reference: of the cell, or the name of a probe's unit; empty for a job.
        of_memory: whether memory was too small.
        is_refusal: whether a job was refused as a whole, for wrong input: it came to none of its cells.
    """

    cell: str
    error: str
    log: str = ""
    reference: str = ""
    of_memory: bool = False
    is_refusal: bool = False


class CellsFailed(Exception):
    """Some cells of a job, or of a sweep, failed; the others ended well. The exit code is 1."""

    def __init__(self, failures: Sequence[Failure], count: int | None = None) -> None:
        self.failures = failures
        of_all = "" if count is None else f" of {count}"
        super().__init__(f"{len(failures)}{of_all} failed; {AGAIN}")


@dataclass
class JobEnds:
    """How the jobs of a sweep ended, or those of an experiment.

    Attributes:
        failed: what failed.
        done: how many jobs ended well.
    """

    failed: list[Failure] = field(default_factory=list)
    done: int = 0

    def check(self) -> None:
        """Raises `CellsFailed` if something failed; InputError if every job was refused: nothing ran."""
        if self.failed and not self.done and all(failure.is_refusal for failure in self.failed):
            raise InputError(reasons(self.failed))
        if self.failed:
            raise CellsFailed(self.failed)


def in_one_line(error: BaseException) -> str:
    """An error's message in one line, after its type where it is a defect and no wrong input."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError | OSError | MemoryError | FloatingPointError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def stops_all(error: BaseException) -> bool:
    """Whether an error ends the whole job: the user's interrupt, or what every other cell would meet too."""
    of_disk = isinstance(error, OSError) and error.errno in EVERY_CELLS
    return not isinstance(error, Exception) or isinstance(error, (*STOPS, DiskError)) or of_disk


def write_log(cell: Path, error: BaseException) -> Path | None:
    """Write the traceback of an error into the folder of its cell; None: it cannot be written."""
    text = "".join(traceback.format_exception(error))
    # Most often the disk is full. The error that is being raised is more useful than its log.
    with suppress(OSError):
        write_whole(cell / LOG_FILE, text.encode(errors="backslashreplace"))
        return cell / LOG_FILE
    return None


def reasons(failed: Iterable[Failure]) -> str:
    """The errors of failures, each once, in one line."""
    return "; ".join(dict.fromkeys(failure.error for failure in failed))


def last_error(log: Path) -> str:
    """The last error in the output of a process, without the job's name; empty if it has none."""
    with suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        reasons = [error.partition(" failed: ")[2] or error for error in errors if not error.endswith(AGAIN)]
        return reasons[-1] if reasons else ""
    return ""


class Failures:
    """Collects the failures of a job's cells, so that the job goes on with its next cell.

    Args:
        count: of the job's cells.
        failed: cells that have failed before.

    Attributes:
        last: the error of the cell that failed last.
    """

    def __init__(self, count: int, failed: Mapping[Path, Failure] | None = None) -> None:
        self.count = count
        self.by_cell: dict[Path, Failure] = dict(failed or {})
        self.last: BaseException | None = None

    @contextmanager
    def catching(self, cell: Path, reference: str) -> Iterator[None]:
        """Within the block an error is the cell's alone, unless `stops_all`.

        The error is said at once on stderr: the table comes at the end, perhaps in hours.
        """
        try:
            yield
        except Exception as error:  # whatever it is, it is stored with its traceback
            if stops_all(error):
                raise
            log = str(cell / LOG_FILE) if (cell / LOG_FILE).exists() else ""
            failure = Failure(str(cell), in_one_line(error), log, reference, isinstance(error, MemoryError))
            self.by_cell[cell] = failure
            if self.count > 1:
                line = f"failed: {reference} ({cell}): {_shortened(failure.error)}"
                print(printable(line), file=sys.stderr)
            self.last = error
            # Its frames hold the tensors of the cell.
            traceback.clear_frames(error.__traceback__)

    def check(self) -> None:
        """Raise `CellsFailed` if a cell failed; the error itself if the job has one cell."""
        if not self.by_cell:
            return
        if self.count == 1 and self.last is not None:
            vars(self.last)["failure"] = next(iter(self.by_cell.values()))
            raise self.last
        raise CellsFailed([*self.by_cell.values()], self.count)


def failures_of(error: BaseException, job: str) -> list[Failure]:
    """The failures that an error of a job stands for; `job` names it where it failed as a whole."""
    if isinstance(error, CellsFailed):
        return [*error.failures]
    failure = vars(error).get("failure")
    if isinstance(failure, Failure):
        return [failure]
    return [Failure(job, in_one_line(error), is_refusal=isinstance(error, InputError))]


def failures(cells: Iterable[Path]) -> list[Failure]:
    """The failures that the `status.json` of cells' folders tell of; a cell without one has not failed."""
    failed = []
    for folder in cells:
        path = folder / STATUS_FILE
        if not path.exists():
            continue
        try:
            status = read_object(path)
        except InputError as error:
            failed.append(Failure(str(folder), in_one_line(error)))
            continue
        if status.get("state") == "failed" and not status.get("replaced_by"):
            log = str(folder / LOG_FILE) if (folder / LOG_FILE).exists() else ""
            reference = str(status.get("reference", status.get("unit", "")))
            failed.append(
                Failure(str(folder), " ".join(str(status.get("error", "")).split()), log, reference)
            )
    return failed


def print_failures(console: Console, failed: Sequence[Failure]) -> None:
    """Print the table of failures; nothing if there is none.

    It is a Markdown table, whose lines a terminal wraps: paths stay whole, for copying.
    """
    lines = [[line.cell, line.reference, _shortened(line.error), line.log] for line in failed]
    if lines:
        texts = [[*map(printable, line)] for line in lines]
        grid = Grid(["failed", "reference", "error", "log"], texts, "l")
        console.print()
        console.print(Text(grid.markdown()), soft_wrap=True)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]} ..."
