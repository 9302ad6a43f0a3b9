"""A sweep that the process of the command runs itself, as one task. Imports no torch."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from motionexp.config.checks import check_device
from motionexp.config.ranks import check_ranks
from motionexp.config.schema import JobConfig
from motionexp.jobs.failures import STOPS
from motionexp.jobs.sweep_folder import VARIABLE, SweepFolder, Task, planned_cells
from motionexp.jobs.task_workers import working_on
from motionexp.jobs.tasks import SweepJob, pieces_of

HYDRA = ".sweep"
"""The folder in `output=` where Hydra stores a sweep's settings: see `conf/config.yaml`."""


@contextmanager
def in_this_process(
    jobs: Sequence[JobConfig], command: Sequence[str], has_failures: Callable[[], bool]
) -> Iterator[None]:
    """Within the block this process runs a sweep: one task, whose jobs report their cells to the plan.

    Where jobs were refused and none came as far as its cells, `output=` is as before.

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
    of_hydra = folder.output / HYDRA
    undo, is_new, is_stopped = folder.undo(), not of_hydra.exists(), False
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
        if has_failures() and not (is_stopped or folder.has_reports):
            if is_new:
                shutil.rmtree(of_hydra, ignore_errors=True)
            undo()
