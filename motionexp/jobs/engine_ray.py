"""Tasks on a Ray cluster: one that runs already, or one of this machine.

Hydra's plugin does not do here: where one process dies, it drops the results of all others.
"""

import os
import socket
from collections.abc import Sequence
from typing import Any

from motionexp.config.launcher import PREFIX, RayLauncher
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError
from motionexp.jobs.engine_joblib import local_environment
from motionexp.jobs.outcomes import OnEnd, Outcome
from motionexp.jobs.sweep_folder import SweepFolder, Task
from motionexp.jobs.worker import RunCommands, Work

SECONDS = 1.0


class RayEngine:
    """A Ray cluster for the tasks of a sweep.

    Args:
        launcher: checked settings.
        jobs: of the sweep.

    Raises:
        InputError: the cluster does not answer, or has fewer cores or GPUs than one task needs.
    """

    def __init__(self, launcher: RayLauncher, jobs: Sequence[JobConfig]) -> None:
        import ray

        _check_address(launcher.address)
        try:
            ray.init(
                # Without an address Ray would look for a cluster, and wait for one that has died.
                address=launcher.address or "local",
                log_to_driver=False,
                include_dashboard=False if launcher.address is None else None,
                logging_level="error",
                runtime_env={"env_vars": {"PYTHONPATH": local_environment(1)["PYTHONPATH"]}},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"{PREFIX}address={launcher.address}: {str(error).splitlines()[0]}") from error
        resources = ray.cluster_resources()
        gpus, cores = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
        on_cpu = all(cfg.device == "cpu" for cfg in jobs)
        self.num_cpus = launcher.num_cpus
        devices = max(cfg.trainer.devices for cfg in jobs)
        self.num_gpus = launcher.num_gpus
        if self.num_gpus is None:
            self.num_gpus = float(devices) if gpus and not on_cpu else 0.0
        for name, needed, present in (("num_cpus", self.num_cpus, cores), ("num_gpus", self.num_gpus, gpus)):
            if needed > present:
                ray.shutdown()
                raise InputError(f"{PREFIX}{name}={needed:g}: the cluster has {present:g} in all")
        by_gpu = gpus // self.num_gpus if self.num_gpus else cores // self.num_cpus
        self.at_once = max(1, int(min(by_gpu, cores // self.num_cpus)))

    def attached(self, folder: SweepFolder) -> list[Task]:
        """Wait for tasks of an earlier command. There are none: they end with it."""
        return []

    def run(self, folder: SweepFolder, tasks: Sequence[Task], run: RunCommands, on_end: OnEnd) -> None:
        """Run tasks; `on_end` is called with each one's outcome."""
        import ray

        environment = {**local_environment(1), "OMP_NUM_THREADS": str(max(1, int(self.num_cpus)))}
        # A process does one task; one that dies is not started again: the same command runs what is missing.
        options = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "max_retries": 0, "max_calls": 1}
        remote = ray.remote(**options)(do_task)
        left: dict[Any, Task] = {}
        for task in tasks:
            work = Work(str(folder.path), task.number, os.getcwd(), task.commands, environment)
            left[remote.remote(work, run, str(folder.log(task)))] = task
        while left:
            done, _ = ray.wait(list(left), num_returns=1, timeout=SECONDS)
            for reference in done:
                task = left.pop(reference)
                on_end(task, _outcome(reference, str(folder.log(task))))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        import ray

        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Raises InputError where nobody answers at HOST:PORT; Ray itself would ask for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdecimal() or "://" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"{PREFIX}address={address}: no cluster answers there ({error})") from error


def do_task(work: Work, run: RunCommands, log: str) -> int:
    """Do a task in a process of Ray's, with its output in a file."""
    with open(log, "a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    return work.do(run)


def _outcome(reference: Any, log: str) -> Outcome:
    import ray

    try:
        return Outcome.of_code(ray.get(reference), log)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Outcome(f"its process died: {lines[0]}" if lines else "its process died", log)
