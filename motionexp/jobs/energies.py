"""Rows of the energies of the bundled world's factors in a backbone's latents, which probes compare with."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from motionexp.config.ids import energies_id
from motionexp.data.shapes.energies import energies
from motionexp.jobs.cell import Cell
from motionexp.jobs.job import Job
from motionexp.results import Row

METRIC_VERSION = 1


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
        cell.add_rows([_row(job, key, each.contrast, each.factor, each.energy) for each in found])
    return cell.rows()


def _row(job: Job, key: str, contrast: str, factor: str, energy: float) -> Row:
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
