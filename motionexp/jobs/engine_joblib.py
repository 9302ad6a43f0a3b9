"""Tasks in processes of this machine, as many at once as `hydra.launcher.n_jobs` says.

joblib hands the tasks to threads, each of which waits for one process. Hydra's plugin and joblib's own pool
of processes do not do here: where the system kills one process of such a pool, for instance because memory
is short, the pool ends all others.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from motionexp.config.checks import check_device
from motionexp.config.launcher import PREFIX, JoblibLauncher
from motionexp.config.ranks import check_ranks
from motionexp.config.schema import JobConfig
from motionexp.config.threads import COUNTS, available_cores, quotas
from motionexp.errors import InputError
from motionexp.files import PACKAGE
from motionexp.jobs.outcomes import OnEnd, Outcome
from motionexp.jobs.sweep_folder import VARIABLE, SweepFolder, Task
from motionexp.jobs.worker import RunCommands, Work, as_line, visible_gpus
from motionexp.results.formats import amount

START = (
    "import sys; from motionexp.cli import run_commands; from motionexp.jobs.worker import run_from_stdin;"
)
START += " sys.exit(run_from_stdin(run_commands))"


class JoblibEngine:
    """Processes of this machine.

    Args:
        launcher: checked settings.
        jobs: of the sweep.

    Attributes:
        gpus: of which each process takes some; empty where the jobs compute on the CPU.
        devices: how many of them it takes.
        at_once: how many processes run at once.
    """

    def __init__(self, launcher: JoblibLauncher, jobs: Sequence[JobConfig]) -> None:
        self.gpus, self.devices = gpus_for(jobs), max(cfg.trainer.devices for cfg in jobs)
        self.at_once = _at_once(launcher, self.gpus, self.devices)

    def attached(self, folder: SweepFolder) -> list[Task]:
        """Wait for tasks of an earlier command. There are none: they end with it."""
        return []

    def run(self, folder: SweepFolder, tasks: Sequence[Task], run: RunCommands, on_end: OnEnd) -> None:
        """Run tasks; `on_end` is called with each one's outcome, from several threads.

        Args:
            run: what a process does.

        Raises:
            KeyboardInterrupt, Stopped: after the processes were asked to save their state, and have ended.
        """
        run_with_joblib(folder, tasks, self, on_end)

    def close(self) -> None:
        """Nothing is left open."""


def gpus_for(jobs: Sequence[JobConfig]) -> list[str]:
    """The GPUs of this machine for the processes of a sweep; none where every job computes on the CPU.

    Raises:
        InputError: a job names one GPU, while each process gets one of its own, or this machine has not the
            GPUs that a job asks for.
    """
    if nodes := next((cfg.trainer.num_nodes for cfg in jobs if cfg.trainer.num_nodes > 1), None):
        raise InputError(
            f"trainer.num_nodes={nodes}: only hydra/launcher=submitit_slurm runs on several nodes"
        )
    if wrong := next((cfg.device for cfg in jobs if cfg.device.startswith("cuda:")), None):
        raise InputError(
            f"device={wrong}: the launcher gives each process a GPU of its own; leave device= out"
        )
    for cfg in jobs:
        if not cfg.dry_run:  # which may be for another machine's GPUs
            check_device(cfg.device)
            check_ranks(cfg)
    return [] if all(cfg.device == "cpu" for cfg in jobs) else visible_gpus()


def _at_once(launcher: JoblibLauncher, gpus: Sequence[str], devices: int) -> int:
    """How many processes run at once. Raises InputError for more than there are GPUs."""
    most = max(1, (len(gpus) or _cores()) // devices)
    if gpus and launcher.n_jobs is not None and launcher.n_jobs > most:
        raise InputError(
            f"{PREFIX}n_jobs={launcher.n_jobs}: a process takes {amount(devices, 'GPU')}, and this"
            f" machine has {len(gpus)} ({', '.join(gpus)}); device=cpu runs on the cores"
        )
    return launcher.n_jobs or most


def _cores() -> int:
    return max(1, int(min([available_cores(), *quotas()])))


def local_environment(at_once: int) -> dict[str, str]:
    """The variables of one of `at_once` processes: its share of the cores, unless the user has set it."""
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if not any(name in os.environ for name in COUNTS):
        environment["OMP_NUM_THREADS"] = str(max(1, _cores() // at_once))
    return environment


def run_with_joblib(folder: SweepFolder, tasks: Sequence[Task], engine: JoblibEngine, on_end: OnEnd) -> None:
    """See `JoblibEngine.run`."""
    from joblib import Parallel, delayed

    running: set[subprocess.Popen[str]] = set()
    is_stopping = threading.Event()
    environment = local_environment(engine.at_once * engine.devices)

    def run(task: Task) -> None:
        if is_stopping.is_set():
            return
        place = str(folder.path), task.number, os.getcwd()
        work = Work(*place, task.commands, environment, engine.gpus, engine.devices)
        with open(folder.log(task), "a") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", START],
                env={**os.environ, **environment, VARIABLE: str(folder.path)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
            running.add(process)
            assert process.stdin is not None
            process.stdin.write(as_line(work))
            process.stdin.flush()  # it stays open: its end tells the process that this one is dead
            code = process.wait()
            running.discard(process)
        if not is_stopping.is_set():
            on_end(task, Outcome.of_code(code, str(folder.log(task))))

    try:
        Parallel(n_jobs=engine.at_once, backend="threading", pre_dispatch="n_jobs", batch_size=1)(
            delayed(run)(task) for task in tasks
        )
    finally:
        is_stopping.set()
        for process in list(running):
            process.send_signal(signal.SIGTERM)
        for process in list(running):
            process.wait()
