"""A sweep's folder, `OUTPUT/sweeps/ID/`: its plan, its tasks as commands, and where their cells are.

A process that does a task, or a part of one, has the folder's name in the variable `MOTIONEXP_SWEEP`.
Imports no torch.
"""

import hashlib
import itertools
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from motionexp.config.ids import FIT_VERSION, PROBE_VERSION, SAMPLE_VERSION
from motionexp.config.job_settings import OF_BASE, base_settings, is_base_job, makes_base, plain_settings
from motionexp.config.schema import JobConfig, tiles, training_seeds
from motionexp.errors import InputError
from motionexp.files import existing_part, locked, user_path, write_whole
from motionexp.jobs.cell import read_json, write_json
from motionexp.jobs.finished import PLACE, FinishedCell
from motionexp.jobs.sweep_plan import PLAN, SWEEP_FOLDER, SWEEPS, VERSION, read_plan
from motionexp.jobs.sweeps import settings_of
from motionexp.jobs.task_workers import remove_dead_workers
from motionexp.jobs.tasks import Piece, SweepJob, cells_of

Place = tuple[str, int, Path]
"""Where a cell is: the name of its reference or of a probe's unit, its training seed, its folder."""
VARIABLE = SWEEP_FOLDER
PLAN_LOCK = ".plan.lock"
HYDRA = ".sweep"
"""The folder in `output=` where Hydra stores a sweep's settings: see `conf/config.yaml`."""
SUBMITTED = "submitted.json"
"""In a sweep's folder: {task: job of Slurm}."""


def job_key(cfg: JobConfig) -> str:
    """12 hex digits of the settings of a job, apart from its references and from what changes no result.

    Jobs of the base model that differ in settings of tuning alone have one key: they make the same cells.
    """
    if is_base_job(cfg):
        settings = {name: value for name, value in plain_settings(cfg).items() if name in OF_BASE}
        return _digest(settings | {"tiles": tiles(cfg.mode, cfg.model)})
    return _digest(_settings(cfg))


def _settings(cfg: JobConfig) -> dict[str, Any]:
    return {name: value for name, value in plain_settings(cfg).items() if name not in PLACE}


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class Task:
    """A task of a plan.

    Attributes:
        number: from 0 in the sweep's folder.
        commands: the arguments of `python run.py`, one list a command.
        seconds: it takes; None: not known.
        cells: how many cells it does.
    """

    number: int
    commands: list[list[str]]
    seconds: float | None
    cells: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.number:03d}"


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep."""

    path: Path

    @classmethod
    def of(cls, jobs: Sequence[JobConfig]) -> "SweepFolder":
        """The folder of the sweep of these jobs, whatever launcher runs it."""
        keys = [[_digest(_settings(cfg)), cfg.references] for cfg in jobs]
        digest = _digest([keys, FIT_VERSION, SAMPLE_VERSION, PROBE_VERSION])
        return cls(user_path(jobs[0].output).absolute() / SWEEPS / digest)

    @property
    def output(self) -> Path:
        """The folder of results, to which the plan's paths are relative."""
        return self.path.parent.parent

    def log(self, task: Task) -> Path:
        """The output of a task's process."""
        return self.path / "tasks" / f"{task.name}.log"

    def add(
        self, about: Mapping[str, Any], tasks: Sequence[Task], cells: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Task], list[dict[str, Any]]]:
        """Add what a command does to the plan, and each of its tasks as a script; earlier tasks stay.

        Returns:
            As `numbered`.
        """
        (self.path / "tasks").mkdir(parents=True, exist_ok=True)
        remove_dead_workers(self.path)
        with locked(self.path / PLAN_LOCK):
            earlier = self._earlier()
            tasks, new = self.numbered(tasks, cells)
            for task in tasks:
                script = self._script(task).encode(errors="surrogateescape")
                write_whole(self.path / "tasks" / f"{task.name}.sh", script)
            plain = {task["number"]: task for task in earlier.get("tasks", [])}
            plain |= {
                task.number: {"number": task.number, "commands": task.commands, "seconds": task.seconds}
                for task in tasks
            }
            located = _located(new, self._reported())
            named = {_key(cell) for cell in located}
            older = [cell for cell in earlier.get("cells", []) if _key(cell) not in named]
            now = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(
                self.path / PLAN,
                {
                    "version": VERSION,
                    **about,
                    "written": now,
                    "folder": os.getcwd(),
                    "tasks": [*plain.values()],
                    "cells": [*located, *older],
                },
            )
        return tasks, new

    def numbered(
        self, tasks: Sequence[Task], cells: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Task], list[dict[str, Any]]]:
        """Tasks and cells of a command with the numbers that the tasks have in the plan.

        A task has the number of an earlier one with the same commands, else the next one. A cell that no task
        of the command makes stays in the earlier task that made it.
        """
        earlier = self._earlier()
        numbers = {repr(task["commands"]): task["number"] for task in earlier.get("tasks", [])}
        following = itertools.count(max(numbers.values(), default=-1) + 1)
        new = {
            task.number: numbers[text] if (text := repr(task.commands)) in numbers else next(following)
            for task in tasks
        }
        before = {_key(cell): cell["task"] for cell in earlier.get("cells", [])}
        return [replace(task, number=new[task.number]) for task in tasks], [
            {**cell, "task": before.get(_key(cell)) if cell["task"] is None else new[cell["task"]]}
            for cell in cells
        ]

    def _earlier(self) -> dict[str, Any]:
        """The plan of earlier commands; empty if it cannot be read: a new one is written in its place."""
        with suppress(InputError):
            if (self.path / PLAN).exists():
                read_plan(self.path / PLAN)
                return self.read()
        return {}

    def undo(self) -> Callable[[Collection[Path]], None]:
        """What puts the folder back to how it is now: for a command of which nothing has run.

        It also deletes files that the command's own tasks have left, if it is told of them. It leaves a
        folder in which another command of the same sweep has begun meanwhile.
        """
        root, before = existing_part(self.path), {*self.path.rglob("*")}
        of_hydra = self.output / HYDRA
        is_new = not of_hydra.exists()
        plan = (self.path / PLAN).read_bytes() if (self.path / PLAN).exists() else b""

        def put_back(of_tasks: Collection[Path] = ()) -> None:
            new = [path for path in self.path.rglob("*") if path not in before]
            foreign = [path for path in new if path not in of_tasks]
            if any(path.suffix in (".lock", ".log") or path.name == SUBMITTED for path in foreign):
                return
            if is_new:
                shutil.rmtree(of_hydra, ignore_errors=True)
            for path in sorted(new, reverse=True):  # what is in a folder comes before the folder
                (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()
            if plan:
                write_whole(self.path / PLAN, plan)
            for folder in (self.path, *self.path.parents):
                if folder == root or any(folder.iterdir()):
                    break
                folder.rmdir()

        return put_back

    def _script(self, task: Task) -> str:
        lines = [shlex.join([sys.executable, "-m", "motionexp", *command]) for command in task.commands]
        variables = [f"export {VARIABLE}={shlex.quote(str(self.path))}"]
        if path := os.environ.get("PYTHONPATH"):
            variables.append(f"export PYTHONPATH={shlex.quote(path)}")
        return "\n".join([f"cd {shlex.quote(os.getcwd())}", *variables, *lines, ""])

    def ended(self, task: int, problem: str) -> None:
        """Store that a task has ended with a problem: no process makes the rest of its cells."""
        with locked(self.path / PLAN_LOCK):
            if plan := self.read():
                for entry in plan["tasks"]:
                    if entry["number"] == task:
                        entry["problem"] = problem
                write_json(self.path / PLAN, plan)

    def read(self) -> dict[str, Any]:
        """The plan, with the folders of the cells to which a process has come; empty if there is none.

        Raises:
            InputError: the plan is damaged, or of another version of this program.
        """
        plan = read_json(self.path / PLAN) or {}
        if plan and plan.get("version") != VERSION:
            raise InputError(
                f"{self.path / PLAN}: of version {plan.get('version')}; this program reads {VERSION}"
            )
        if plan:
            plan["cells"] = _located(plan["cells"], self._reported())
        return plan

    def report(self, cfg: JobConfig, cells: Iterable[Place], of_base: Iterable[Place] = ()) -> None:
        """Store where a job's cells are, and those of the base model that it makes beside them."""
        is_new = False
        for job, places in ((cfg, cells), (base_settings(cfg), of_base)):
            located = [
                [name, seed, os.path.relpath(folder.absolute(), self.output)] for name, seed, folder in places
            ]
            # One file a process: no file is written by two.
            path = self.path / "cells" / f"{job_key(job)}-{_digest(located)}.json"
            if located and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, {"job": job_key(job), "cells": located})
                is_new = True
        if is_new:
            self.locate()

    def report_finished(self, cfg: JobConfig, cells: Sequence[FinishedCell]) -> None:
        """As `report`, of references that a job has finished: each has a cell for every training seed."""
        seeds = training_seeds(cfg) * (len(cells) // len(training_seeds(cfg)))
        places = [(c.reference.name, seed, c.cell.folder) for c, seed in zip(cells, seeds, strict=True)]
        of_base = [(c.reference.name, cfg.seed, c.base.cell.folder) for c in cells if c.base is not None]
        self.report(cfg, places, of_base)

    def locate(self) -> None:
        """Write the folders of cells that were reported into the plan."""
        with locked(self.path / PLAN_LOCK):
            if plan := self.read():
                write_json(self.path / PLAN, plan)

    @property
    def has_reports(self) -> bool:
        """Whether a job has come as far as its cells."""
        return any((self.path / "cells").glob("*.json"))

    def _reported(self) -> dict[str, dict[tuple[str, int], str]]:
        """{job: {(reference or unit, training seed): the cell's folder}}."""
        by_job: dict[str, dict[tuple[str, int], str]] = {}
        for path in sorted((self.path / "cells").glob("*.json")):
            reported = read_json(path) or {}
            cells = by_job.setdefault(str(reported["job"]), {})
            cells |= {(str(name), int(seed)): str(cell) for name, seed, cell in reported["cells"]}
        return by_job


def _located(
    cells: Sequence[Mapping[str, Any]], reported: Mapping[str, Mapping[tuple[str, int], str]]
) -> list[dict[str, Any]]:
    """The cells of a plan with their folders; of a probe its units in the place of their reference."""
    located = []
    for cell in cells:
        of_job = reported.get(cell["job"], {})
        key = str(cell["reference"]), int(cell["training_seed"])
        units = [name for name, _ in of_job if name.startswith(f"{cell['reference']}, ")]
        if key in of_job or not units:
            located.append({**cell, "cell": of_job.get(key, cell["cell"])})
        located += [
            {**cell, "reference": name, "cell": of_job[name, key[1]]} for name in units if key not in of_job
        ]
    return located


def _key(cell: Mapping[str, Any]) -> Hashable:
    return cell["job"], cell["reference"], cell["training_seed"]


def in_task() -> bool:
    """Whether this process works for a sweep: it then checks, plans and sums up nothing of it."""
    return VARIABLE in os.environ


def sweep_of_process() -> SweepFolder | None:
    """The folder of the sweep that this process works for; None: it works for none."""
    path = os.environ.get(VARIABLE)
    return SweepFolder(Path(path)) if path else None


def planned_cells(
    jobs: Sequence[SweepJob],
    pieces: Sequence[Piece],
    task_of: Mapping[Piece, int],
    seconds: Callable[[JobConfig, str], float | None],
) -> list[dict[str, Any]]:
    """The cells of a plan, whose folders are not known yet; those without a task are finished.

    A cell of the base model is one cell of the plan, however many jobs make it.

    Args:
        jobs: of the sweep.
        pieces: of all jobs.
        task_of: {unfinished piece: the number of its task}.
        seconds: that a cell of a job and a reference takes; None: unknown.
    """
    _, differences = settings_of([job.cfg for job in jobs])
    makers = [_Maker.of(job.cfg, differs) for job, differs in zip(jobs, differences, strict=True)]
    of_base = [
        _Maker.of(base_settings(job.cfg), differs) if makes_base(job.cfg) else None
        for job, differs in zip(jobs, differences, strict=True)
    ]
    entries: dict[Hashable, dict[str, Any]] = {}
    # 1. The cells of the jobs themselves.
    for piece in pieces:
        maker = makers[piece.job]
        for cell in cells_of(maker.cfg, piece):
            if (maker.key, *cell) not in entries:
                entries[maker.key, *cell] = maker.entry(*cell, task_of.get(piece), seconds)
    # 2. The base model's, in the task that comes to it first; finished where a job with it is finished.
    of_jobs = {*entries}
    for piece in pieces:
        if (base := of_base[piece.job]) is None:
            continue
        for name in piece.references:
            key, task = (base.key, name, base.cfg.seed), task_of.get(piece)
            if key not in entries:
                entries[key] = base.entry(name, base.cfg.seed, task, seconds)
            elif task is None and key not in of_jobs:
                entries[key]["task"] = None
    return [*entries.values()]


@dataclass(frozen=True)
class _Maker:
    """A job of a sweep, or the base model's job beside it, as the entries of its cells name it."""

    cfg: JobConfig
    key: str
    settings: Mapping[str, str]

    @classmethod
    def of(cls, cfg: JobConfig, differences: Mapping[str, str]) -> "_Maker":
        """The maker of a job that differs in some settings from the others of its sweep."""
        settings = {name: text for name, text in differences.items() if name != "references"}
        if is_base_job(cfg):
            settings = {"tau": "1000"} | {n: text for n, text in settings.items() if n in OF_BASE}
        return cls(cfg, job_key(cfg), settings)

    def entry(
        self,
        reference: str,
        seed: int,
        task: int | None,
        seconds: Callable[[JobConfig, str], float | None],
    ) -> dict[str, Any]:
        """The entry of a cell in the plan."""
        expected = seconds(self.cfg, reference)
        return {
            "cell": None,
            "job": self.key,
            "model": self.cfg.model.name,
            "reference": reference,
            "training_seed": seed,
            "base_model": is_base_job(self.cfg),
            "settings": self.settings,
            "task": task,
            "seconds": None if expected is None else round(expected, 1),
        }
