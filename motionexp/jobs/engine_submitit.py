"""Tasks by submitit: processes of this machine, or a job array on a Slurm cluster.

The tasks are submitted by submitit; this module waits for them. Hydra's plugin and submitit's own waiting ask
`sacct`: on a cluster without accounting they wait for ever for a task that was killed or cancelled. Here
`squeue` is asked.

When Slurm preempts a task, or its time is nearly over, the training saves its state, the task is put into the
queue again, and goes on at the step where it was.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from motionexp.config.launcher import PREFIX, LocalLauncher, SlurmLauncher
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError, one_of
from motionexp.jobs.cell import read_json, write_json
from motionexp.jobs.engine_joblib import JoblibEngine, local_environment
from motionexp.jobs.outcomes import OnEnd, Outcome
from motionexp.jobs.sweep_folder import SUBMITTED, SweepFolder, Task
from motionexp.jobs.worker import RunCommands, Work

SECONDS = 2.0
"""Between two questions to Slurm."""
PATIENCE = 10.0
"""Seconds that the result of an ended task may take to appear on a shared file system."""
REQUEUES = (signal.SIGUSR1, signal.SIGUSR2)
ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
)
"""The states of a job that Slurm will not run again."""
USUAL = ("None", "Priority", "Resources", "JobArrayTaskLimit", "BeginTime", "Prolog")
"""Why a task waits, where nobody has to do anything."""


@dataclass
class SubmittedTask:
    """A task as submitit stores and calls it.

    Attributes:
        work: what to do.
        run: runs commands; see `RunCommands`.
    """

    work: Work
    run: RunCommands

    def __call__(self) -> int:
        """Run the task. Where the cluster takes it off its node, it is queued again and the process ends."""
        watched = (signal.SIGTERM, *REQUEUES)
        of_submitit = {number: signal.getsignal(number) for number in watched}
        for number in watched:  # the commands then save their state on a signal, and end
            signal.signal(number, signal.SIG_DFL)
        code = self.work.do(self.run)
        for number, handler in of_submitit.items():
            signal.signal(number, handler)
        stopped_by = code - 128
        if stopped_by in REQUEUES or (stopped_by == signal.SIGTERM and _is_preempted()):
            self._requeue()
        return code

    def _requeue(self) -> None:
        from submitit.core.job_environment import JobEnvironment

        # submitit's handler counts how often the time was over, requeues the job and exits.
        os.kill(os.getpid(), JobEnvironment._usr_sig())
        time.sleep(3600)  # a process of another rank: the job ends with that of the first

    def checkpoint(self) -> Any:
        """What submitit runs at the task's next turn: the same, which goes on from what is stored."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _is_preempted() -> bool:
    """Whether Slurm has told this job that another one needs its node; else somebody has cancelled it."""
    if (job := os.environ.get("SLURM_JOB_ID")) is None:
        return False
    shown = subprocess.run(
        ["scontrol", "show", "job", job], capture_output=True, text=True, check=False
    ).stdout
    return re.search(r"PreemptTime=(?!None)\S", shown) is not None


class LocalEngine(JoblibEngine):
    """Processes of this machine, which submitit starts."""

    def __init__(self, launcher: LocalLauncher, jobs: Sequence[JobConfig]) -> None:
        super().__init__(launcher, jobs)
        self.launcher = launcher

    def run(self, folder: SweepFolder, tasks: Sequence[Task], run: RunCommands, on_end: OnEnd) -> None:
        """See `JoblibEngine.run`."""
        import submitit

        executor = submitit.LocalExecutor(folder.path / "submitit", self.launcher.max_num_timeout)
        executor.update_parameters(
            timeout_min=self.launcher.timeout_min,
            signal_delay_s=self.launcher.signal_delay_s,
            stderr_to_stdout=True,
        )
        environment = local_environment(self.at_once)
        waiting, running = list(tasks), dict[int, tuple[Task, Any]]()
        try:
            while waiting or running:
                while waiting and len(running) < self.at_once:
                    task = waiting.pop(0)
                    place = str(folder.path), task.number, os.getcwd()
                    work = Work(*place, task.commands, environment, self.gpus, self.devices)
                    running[task.number] = task, executor.submit(SubmittedTask(work, run))
                for number, (task, job) in list(running.items()):
                    if job.done():
                        del running[number]
                        on_end(task, _outcome(job))
                time.sleep(0.2)
        finally:
            for _, job in running.values():
                job._process.send_signal(signal.SIGTERM)  # which its processes get too
            for _, job in running.values():
                job._process.wait()


def _outcome(job: Any) -> Outcome:
    """The outcome of a job that has ended, from the result that its first process stored."""
    from submitit.core.utils import UncompletedJobError

    first = job.task(0)
    if not first.paths.result_pickle.exists():
        return Outcome("killed or cancelled, without a result", str(first.paths.stdout))
    if error := first.exception():
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
        reason = next((line for line in lines[::-1] if "Error" in line), lines[0])
        if isinstance(error, UncompletedJobError) or "UncompletedJobError" in reason:
            reason = reason.partition("UncompletedJobError: ")[2] or reason
        return Outcome(reason, str(first.paths.stdout))
    return Outcome.of_code(int(first.result()), str(first.paths.stdout))


# Slurm


class SlurmEngine:
    """The tasks of a sweep on a Slurm cluster.

    Args:
        launcher: checked settings.
        jobs: of the sweep.

    Raises:
        InputError: there is no such partition, or the cluster does not answer.
    """

    def __init__(self, launcher: SlurmLauncher, jobs: Sequence[JobConfig]) -> None:
        sizes = {(cfg.trainer.devices, cfg.trainer.num_nodes) for cfg in jobs}
        if len(sizes) > 1:
            texts = " and ".join(f"{devices} x {nodes}" for devices, nodes in sorted(sizes))
            raise InputError(
                f"trainer.devices= x trainer.num_nodes=: {texts}; all tasks of a job array have as many"
                " processes: run a sweep for each"
            )
        ((self.processes, self.nodes),) = sizes
        self.launcher, self.gpus, self.at_once = (
            launcher,
            _gpus_of_a_task(launcher, jobs),
            launcher.array_parallelism,
        )
        listed = _answer(["sinfo", "-h", "-o", "%R"])
        if listed is None:
            if all(cfg.dry_run for cfg in jobs):  # a plan for another machine
                print("submitit_slurm: no cluster answers here, so that the partition is not checked")
                return
            raise InputError("hydra/launcher=submitit_slurm: the cluster does not answer (`sinfo` says why)")
        partitions = list(dict.fromkeys(listed.split()))
        for name in (self.launcher.partition or "").split(","):
            if name and name not in partitions:
                raise InputError(f"{PREFIX}partition={name}: {one_of(name, partitions)}")

    def attached(self, folder: SweepFolder) -> dict[int, Any]:
        """{task: job} of the tasks that an earlier command submitted, and that are still queued or run."""
        import submitit

        stored = (read_json(folder.path / SUBMITTED) or {}).get("jobs", {})
        if (states := _states(stored.values())) is None:
            # To submit them again could run each task twice.
            raise InputError(
                "hydra/launcher=submitit_slurm: Slurm does not say whether tasks of an earlier command run"
                " (squeue fails); try again when it answers"
            )
        return {
            int(number): submitit.SlurmJob(folder.path / "submitit", job)
            for number, job in stored.items()
            if job in states and states[job][0] not in ENDED
        }

    def run(self, folder: SweepFolder, tasks: Sequence[Task], run: RunCommands, on_end: OnEnd) -> None:
        """Submit tasks as one array, and wait. They go on if this process ends: the same command waits again.

        Raises:
            InputError: Slurm refuses them.
        """
        jobs = self._submit(folder, tasks, run)
        names = {task.number: task for task in tasks}
        self.wait(jobs, lambda number, outcome: on_end(names[number], outcome))

    def _submit(self, folder: SweepFolder, tasks: Sequence[Task], run: RunCommands) -> dict[int, Any]:
        import submitit
        from submitit.core.utils import FailedJobError

        executor = submitit.AutoExecutor(
            folder.path / "submitit", cluster="slurm", slurm_max_num_timeout=self.launcher.max_num_timeout
        )
        places = [(str(folder.path), task.number, os.getcwd()) for task in tasks]
        works = [
            Work(*place, task.commands, self._environment())
            for place, task in zip(places, tasks, strict=True)
        ]
        try:
            executor.update_parameters(**self._parameters())
            with executor.batch():
                jobs = [executor.submit(SubmittedTask(work, run)) for work in works]
        except (FailedJobError, subprocess.CalledProcessError, ValueError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = next((line for line in lines if "error:" in line), lines[-1])
            request = f"; {PREFIX}gpus_per_node={self.gpus} was asked for, device=cpu asks for none"
            raise InputError(
                f"hydra/launcher=submitit_slurm: Slurm refuses the tasks: {reason}"
                + request * bool(self.gpus)
            ) from error
        by_number = {task.number: job for task, job in zip(tasks, jobs, strict=True)}
        write_json(folder.path / SUBMITTED, {"jobs": {str(n): job.job_id for n, job in by_number.items()}})
        return by_number

    def _parameters(self) -> dict[str, Any]:
        launcher = self.launcher
        parameters = {
            "name": "motionexp",
            "nodes": self.nodes,
            "tasks_per_node": self.processes,
            "cpus_per_task": launcher.cpus_per_task,
            "gpus_per_node": self.gpus or None,
            "mem_gb": launcher.mem_gb,
            "timeout_min": launcher.timeout_min,
            "stderr_to_stdout": True,
            "slurm_partition": launcher.partition,
            "slurm_account": launcher.account,
            "slurm_qos": launcher.qos,
            "slurm_signal_delay_s": launcher.signal_delay_s,
            "slurm_array_parallelism": launcher.array_parallelism,
            "slurm_setup": launcher.setup or None,
            "slurm_additional_parameters": launcher.additional_parameters or None,
        }
        return {name: value for name, value in parameters.items() if value is not None}

    def _environment(self) -> dict[str, str]:
        return {**local_environment(1), "OMP_NUM_THREADS": str(self.launcher.cpus_per_task)}

    def wait(self, jobs: Mapping[int, Any], on_end: Callable[[int, Outcome], None]) -> None:
        """Wait for tasks, and say what somebody has to look at; `on_end` gets the outcome of each number."""
        left, since, notes = dict(jobs), dict[int, float](), dict[int, str]()
        while left:
            states = _states(job.job_id for job in left.values())
            for number, job in list(left.items()) if states is not None else ():
                state, reason = (states or {}).get(job.job_id, ("no longer known to Slurm", ""))
                if state in ENDED or not reason:
                    first = since.setdefault(number, time.monotonic())
                    if job.task(0).paths.result_pickle.exists() or time.monotonic() - first > PATIENCE:
                        del left[number]
                        outcome = _outcome(job)
                        says = f" (Slurm: {state})" if outcome.problem else ""
                        on_end(number, replace(outcome, problem=outcome.problem + says))
                    continue
                since.pop(number, None)
                if state == "PENDING" and reason not in (*USUAL, notes.get(number)):
                    notes[number] = reason
                    print(f"task {number:03d} waits in Slurm: {reason}", file=sys.stderr, flush=True)
            time.sleep(SECONDS)

    def close(self) -> None:
        """Nothing is left open."""


def _states(jobs: Iterable[str]) -> dict[str, tuple[str, str]] | None:
    """{job: (state, reason)} of the jobs that Slurm knows; None: it does not answer."""
    arrays = sorted({job.partition("_")[0] for job in jobs})
    if not arrays:
        return {}
    states: dict[str, tuple[str, str]] = {}
    for array in arrays:  # alone: where Slurm has forgotten one of several, it tells of none
        shown = _answer(["squeue", "-h", "-t", "all", "-r", "-o", "%i|%T|%r", "-j", array])
        if shown is None:
            return None
        for line in shown.splitlines():
            job, state, reason = line.split("|", 2)
            states[job] = state, reason or "None"
    return states


def _answer(command: Sequence[str]) -> str | None:
    """What a command of Slurm prints; nothing for a job that it forgot. None: it does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    return done.stdout


def _gpus_of_a_task(launcher: SlurmLauncher, jobs: Sequence[JobConfig]) -> int:
    """The GPUs of a node for each task."""
    if launcher.gpus_per_node is not None:
        return launcher.gpus_per_node
    return 0 if all(cfg.device == "cpu" for cfg in jobs) else jobs[0].trainer.devices
