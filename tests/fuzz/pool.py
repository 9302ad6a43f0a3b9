"""Runs cases in processes of their own: one that hangs or dies is a result, and ends nothing."""

import atexit
import gc
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from motionexp.errors import LONGEST_LINE, InputError
from tests.fuzz import cells, commands, stored, studies, texts, videos
from tests.fuzz.damage import Damage
from tests.fuzz.guard import Guard, limit_memory

KINDS = texts.KINDS | commands.KINDS | videos.KINDS | stored.KINDS | cells.KINDS | studies.KINDS
HANG_SECONDS = 90.0
"""Of wall time, after which a process that does not answer is ended."""
LONGEST_ERROR = 20_000
Outcome = Literal["read", "refused", "finding"]


@dataclass(frozen=True)
class Result:
    """Of one case: what was damaged was read, or refused with an InputError; or all else, with its text."""

    kind: str
    seed: int
    outcome: Outcome
    text: str = ""
    seconds: float = 0.0


def run_case(guard: Guard, parent: Path, kind: str, seed: int) -> Result:
    """One case, in a new folder of `parent` in which nothing but that folder may change."""
    folder = Path(tempfile.mkdtemp(dir=parent, prefix="case-"))
    before, start = os.getcwd(), time.monotonic()
    canary = parent / "canary"
    canary.write_text("untouched")
    neighbours = set(os.listdir(parent))
    os.chdir(folder)
    outcome, text = _outcome(guard, folder, kind, seed)
    os.chdir(before)
    if outcome != "finding" and (set(os.listdir(parent)) != neighbours or canary.read_text() != "untouched"):
        outcome, text = "finding", f"the folder above has changed: {os.listdir(parent)}"
    shutil.rmtree(folder, ignore_errors=True)
    return Result(kind, seed, outcome, text, time.monotonic() - start)


def _outcome(guard: Guard, folder: Path, kind: str, seed: int) -> tuple[Outcome, str]:
    case, damage = KINDS[kind][0], Damage(kind, seed)
    try:
        with guard.within(folder):
            case(damage, folder)
    except InputError as error:
        text = str(error)
        # A raised line is shown by the command, which escapes what commands a terminal.
        if not text.strip() or len(text) > LONGEST_ERROR or max(map(len, text.split("\n"))) > LONGEST_LINE:
            return "finding", f"an error of {len(text)} characters: {text[:300]!r}"
        return "refused", text
    except BaseException as error:  # noqa: BLE001  # any other error is what this program looks for
        lines = traceback.format_exception(error)
        return "finding", "".join(lines)[-3000:]
    return "read", ""


def warm(kinds: Iterable[str]) -> None:
    """Run the undamaged case of each kind here, so that a forked process has all modules and models at once.

    Raises:
        InputError: a case that must be read was refused.
    """
    before = os.getcwd()
    for kind in sorted(kinds):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                KINDS[kind][0](Damage(kind, 0), Path(folder))
            finally:
                os.chdir(before)
    # A forked process would wait for ever where it frees a decoder, whose threads it does not have.
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries report what was not freed at the end


def _work(connection: Connection, parent: Path) -> None:
    guard = Guard()
    limit_memory()
    while (order := connection.recv()) is not None:
        connection.send(run_case(guard, parent, *order))


def run(cases: Sequence[tuple[str, int]], workers: int, seconds: float = float("inf")) -> Iterator[Result]:
    """The results of cases as they end, until all are done or the time is over.

    A process is replaced after a finding: its memory or its modules may be changed.
    """
    warm({kind for kind, _ in cases})
    context, deadline = multiprocessing.get_context("fork"), time.monotonic() + seconds
    parent = Path(tempfile.mkdtemp(prefix="fuzz-cases-"))
    orders, busy = list(reversed(cases)), dict[Connection, tuple[Any, tuple[str, int], float]]()
    idle: list[tuple[Connection, Any]] = []
    try:
        while (orders and time.monotonic() < deadline) or busy:
            while orders and len(busy) < workers and time.monotonic() < deadline:
                connection, process = idle.pop() if idle else _started(context, parent)
                busy[connection] = process, orders.pop(), time.monotonic()
                connection.send(busy[connection][1])
            for connection in wait(list(busy), timeout=1.0):
                process, order, _ = busy.pop(connection)
                result = _received(connection, process, order)
                if result.outcome == "finding":
                    _end(connection, process)
                else:
                    idle.append((connection, process))
                yield result
            for connection, (process, order, start) in list(busy.items()):
                if time.monotonic() - start > HANG_SECONDS:
                    del busy[connection]
                    _end(connection, process)
                    yield Result(*order, "finding", f"no answer within {HANG_SECONDS:g} s", HANG_SECONDS)
    finally:
        for connection, process in [*idle, *((c, entry[0]) for c, entry in busy.items())]:
            _end(connection, process)
        shutil.rmtree(parent, ignore_errors=True)


def _started(context: Any, parent: Path) -> tuple[Connection, Any]:
    ours, theirs = context.Pipe()
    folder = Path(tempfile.mkdtemp(dir=parent, prefix="worker-"))
    process = context.Process(target=_work, args=(theirs, folder), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _received(connection: Any, process: Any, order: tuple[str, int]) -> Result:
    try:
        result: Result = connection.recv()
        return result
    except (EOFError, ConnectionResetError):
        process.join()
        return Result(*order, "finding", f"the process died with code {process.exitcode}")


def _end(connection: Any, process: Any) -> None:
    process.kill()
    process.join()
    connection.close()


def schedule(count: int, start: int = 1) -> list[tuple[str, int]]:
    """`count` cases of all kinds by their shares, mixed; seeds of each kind from `start` on."""
    total = sum(share for _, share in KINDS.values())
    cases = []
    for kind, (_, share) in KINDS.items():
        number = max(1, round(count * share / total))
        cases += [((index + 0.5) / number, kind, start + index) for index in range(number)]
    return [(kind, seed) for _, kind, seed in sorted(cases)]
