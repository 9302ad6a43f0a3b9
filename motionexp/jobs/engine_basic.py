"""A sweep that the process of the command runs itself, as one task. Imports no torch."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from motionexp.config.checks import check_device
from motionexp.config.ranks import check_ranks
from motionexp.config.schema import JobConfig
from motionexp.jobs.failures import STOPS, Failure, reasons
from motionexp.jobs.sweep_folder import VARIABLE, SweepFolder, Task, planned_cells
from motionexp.jobs.task_workers import working_on
from motionexp.jobs.tasks import SweepJob, pieces_of


@contextmanager
def in_this_process(
    jobs: Sequence[JobConfig], command: Sequence[str], failed: Callable[[], Sequence[Failure]]
) -> Iterator[None]:
    """Within the block this process runs a sweep: one task, whose jobs report their cells to the plan.

    Where jobs were refused and none came as far as its cells, `output=` is as before.

    Args:
        jobs: of the sweep.
        command: the words that the user typed.
        failed: what has failed of it so far.

    Raises:
        InputError: this machine lacks a device or processes that a job asks for.
    """
    if not jobs or any(cfg.dry_run for cfg in jobs):
        yield
        return
    for cfg in jobs:
        check_device(cfg.device)
        check_ranks(cfg)
    folder, singles = SweepFolder.of(jobs), [SweepJob(cfg, ()) for cfg in jobs]
    pieces = [piece for number, cfg in enumerate(jobs) for piece in pieces_of(number, cfg)]
    cells = planned_cells(singles, pieces, dict.fromkeys(pieces, 0), lambda cfg, reference: None)
    undo, is_stopped = folder.undo(), False
    ((task,), _) = folder.add(
        {"command": [*command], "launcher": "basic"}, [Task(0, [[*command]], None, len(cells))], cells
    )
    os.environ[VARIABLE] = str(folder.path)
    try:
        with working_on(folder.path, task.number):
            yield
    except STOPS:
        is_stopped = True
        raise
    finally:
        os.environ.pop(VARIABLE, None)
        if failed() and not is_stopped:
            folder.ended(task.number, reasons(failed()))
            if not folder.has_reports:
                undo(())
