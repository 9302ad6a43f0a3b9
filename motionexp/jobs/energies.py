"""Rows of the energies of the bundled world's factors in a backbone's latents, which probes compare with."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from motionexp.data.shapes.energies import energies
from motionexp.jobs import provenance
from motionexp.jobs.cell import Cell
from motionexp.jobs.running import Job
from motionexp.results import Row

METRIC_VERSION = 1


def energy_rows(job: Job) -> list[Row]:
    """Rows of every factor and contrast, kept in a cell of their own; measured where they are not there yet.

    An energy is the median squared distance of the latents of pairs that differ in the factor alone. Takes
    about a minute, and the VAE's encoder.
    """
    cell = Cell(job.output / "shapes" / job.cfg.model.name / f"energies-{job.backbone.weights_hash[:12]}")
    if not cell.rows():

        def encode(video: np.ndarray) -> np.ndarray:
            return job.backbone.encode(torch.from_numpy(video)[None]).float().cpu().numpy()

        found = energies(encode, frames=job.cfg.frames)
        cell.add_rows([_row(job, each.contrast, each.factor, each.energy) for each in found])
    return cell.rows()


def _row(job: Job, contrast: str, factor: str, energy: float) -> Row:
    commit, dirty = provenance.commit()
    settings: dict[str, Any] = {"model": asdict(job.cfg.model)}
    return Row(
        metric="energy",
        metric_version=METRIC_VERSION,
        value=energy,
        score_id=f"{job.backbone.weights_hash[:12]}-{contrast}-{factor}",
        suite="shapes",
        reference="energies",
        strata={"contrast": contrast, "factor": factor},
        model=job.cfg.model.name,
        method="energies",
        tau=1000.0,
        steps=0,
        settings=settings,
        commit=commit,
        dirty=dirty,
        packages=provenance.packages(),
        device=provenance.device_name(job.device),
        precision=job.precision,
        weights_hash=job.backbone.weights_hash,
    )
