"""Rows that a probe adds to its samples': the log-SNR of a model's latents, and the energies of factors."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from motionexp.config.ids import energies_id
from motionexp.data.shapes.energies import energies
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.jobs.cell import Cell
from motionexp.jobs.job import Job
from motionexp.probes.timesteps import EDGES
from motionexp.probes.tree import step_blocks
from motionexp.results.rows import Row

METRIC_VERSION = 1  # of both
EVERY = 10
"""A row for every so many timesteps; the log-SNR is smooth."""


def schedule_rows(job: Job, steps: int) -> list[Row]:
    """The log-SNR at t = 0, 10, ... 1000 where it is finite; kept in a cell.

    Args:
        job: of the model.
        steps: of the sampling along which a caption is changed, see `heard_log_snr`; 0: at t itself.
    """
    weights, schedule = job.backbone.weights_hash[:12], job.backbone.schedule
    key = f"{weights}-{job.cfg.frames}-{steps}-{job.precision}-{METRIC_VERSION}"
    cell = Cell(job.output / job.references[0].suite / job.cfg.model.name / f"schedule-{key}")
    if not cell.rows():
        times = range(0, TIMESTEPS + 1, EVERY)
        values = (
            heard_log_snr(schedule, steps)[times] if steps else [float(schedule.log_snr(t)) for t in times]
        )
        rows = [
            _log_snr_row(job, key, steps, t, float(value)) for t, value in zip(times, values, strict=True)
        ]
        cell.add_rows([row for row in rows if np.isfinite(row.value)])
    return cell.rows()


def heard_log_snr(schedule: Schedule, steps: int) -> np.ndarray:
    """(1001,) log-SNR of the latents to which the network first hears a caption that is changed from t on.

    That is at the first sampling timestep below t, which at 50 steps is t - 1 in one model and t - 20 in
    another; known for `EDGES`, and between these in proportion. Raises InputError as `step_blocks`.
    """
    first = [0.0, *(block[0][0] for block in step_blocks(schedule, steps))]
    heard = np.interp(np.arange(TIMESTEPS + 1), EDGES, first)
    return np.array([float(schedule.log_snr(t)) for t in heard])


def _log_snr_row(job: Job, key: str, steps: int, t: int, value: float) -> Row:
    settings: dict[str, Any] = {"model": asdict(job.cfg.model), "frames": job.cfg.frames}
    return Row(
        metric="log_snr",
        metric_version=METRIC_VERSION,
        value=value,
        score_id=f"{key}-{t}",
        suite=job.references[0].suite,
        reference="schedule",
        strata={"t": str(t)},
        method="schedule",
        tau=1000.0,
        steps=steps,
        settings=settings,
        **job.origin(),
    )


def energy_rows(job: Job) -> list[Row]:
    """Rows of every factor and contrast, kept in a cell of their own; measured where they are not there yet.

    An energy is the median squared distance of the latents of pairs that differ in the factor alone. Takes
    about a minute, and the VAE's encoder.
    """
    key = energies_id(
        job.cfg, METRIC_VERSION, weights_hash=job.backbone.weights_hash, precision=job.precision
    )
    cell = Cell(job.output / "shapes" / job.cfg.model.name / f"energies-{key}")
    if not cell.rows():

        def encode(video: np.ndarray) -> np.ndarray:
            return job.backbone.encode(torch.from_numpy(video)[None]).float().cpu().numpy()

        found = energies(encode, frames=job.cfg.frames)
        cell.add_rows([_energy_row(job, key, each.contrast, each.factor, each.energy) for each in found])
    return cell.rows()


def _energy_row(job: Job, key: str, contrast: str, factor: str, energy: float) -> Row:
    settings: dict[str, Any] = {"model": asdict(job.cfg.model), "frames": job.cfg.frames}
    return Row(
        metric="energy",
        metric_version=METRIC_VERSION,
        value=energy,
        score_id=f"{key}-{contrast}-{factor}",
        suite="shapes",
        reference="energies",
        strata={"contrast": contrast, "factor": factor},
        method="energies",
        tau=1000.0,
        steps=0,
        settings=settings,
        **job.origin(),
    )
