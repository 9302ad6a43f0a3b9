"""Whether an experiment's own tables have a line for each of its jobs. Imports no torch."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from motionexp.config.schema import JobConfig, method_name
from motionexp.data.select import make_reader, subjects_of
from motionexp.errors import InputError
from motionexp.layouts import Layout, is_picked
from motionexp.results import Row
from motionexp.row_selection import matches


def check_shown(name: str, layout: Layout, jobs: Iterable[JobConfig], overrides: Sequence[str]) -> None:
    """Refuses jobs whose rows no table of the experiment would show: hours of work for an empty table.

    Layouts without a base model have other tables than those of tuning, and are let through.

    Raises:
        InputError: names the first such job and what the command line gave.
    """
    if not any(setting.base for setting in layout.settings.values()):
        return
    for cfg in jobs:
        unknown = {"metric"} | ({"precision"} if cfg.precision == "auto" else set())
        select = {key: value for key, value in layout.select.items() if key not in unknown}
        row = _row_of(cfg)
        if not (matches(row, select) and is_picked(row, layout)):
            given = f" with {' '.join(overrides)}" if overrides else ""
            raise InputError(
                f"experiment={name}{given}: its tables have no line for the job model={cfg.model.name}"
                f" method={row.method} tau={cfg.tau:g} rank={cfg.rank} train_steps={cfg.train_steps}"
                f" steps={cfg.steps} precision={cfg.precision}. Leave out what changes it, or copy the"
                " experiment's file and name the setting under `settings` (or, of all jobs, `select`) there"
            )


def _row_of(cfg: JobConfig) -> Row:
    """What tables select by in the rows that the job leaves of its first reference."""
    reader, (names, _) = make_reader(cfg), subjects_of(cfg)
    reference = reader.read(names[0], cfg.frames, cfg.model.height, cfg.model.width)
    trains = cfg.tau != 1000
    return Row(
        metric="",
        metric_version=0,
        value=0.0,
        suite=reference.suite,
        reference=reference.name,
        reference_hash=reference.content_hash,
        strata=dict(reference.strata),
        seed=0,
        model=cfg.model.name,
        method=method_name(cfg) if trains else "base",
        tau=float(cfg.tau),
        steps=cfg.steps,
        train_steps=cfg.train_steps if trains else 0,
        adapter_scale=float(cfg.adapter_scale),
        settings=json.loads(json.dumps(asdict(cfg))),
        precision=cfg.precision,
    )
