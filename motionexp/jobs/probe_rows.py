"""Rows that belong to a probe's model: the log-SNR of its latents, and the energies of factors."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch

from motionexp.config.ids import energies_id
from motionexp.data.shapes.energies import KINDS, PAIRS, energy_of
from motionexp.data.shapes.scenes import Scene
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.progress import progress_bar
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.jobs.cell import Cell
from motionexp.jobs.job import Job
from motionexp.jobs.plan import JobPlan
from motionexp.probes.timesteps import EDGES
from motionexp.probes.tree import step_blocks
from motionexp.results.rows import Row

METRIC_VERSION = 1  # of both
EVERY = 10
"""Timesteps from one row to the next; the log-SNR is smooth."""


def schedule_rows(job: Job, steps: int) -> list[Row]:
    """The rows of the log-SNR at t = 0, 10, ... 1000 where it is finite; measured once and stored in a cell.

    Args:
        job: of the model.
        steps: of the sampling along which a caption changes, see `heard_log_snr`; 0: the log-SNR at t itself.
    """
    weights, schedule, suite = job.backbone.weights_hash[:12], job.backbone.schedule, job.references[0].suite
    key = f"{weights}-{job.plan.size[0]}-{steps}-{job.precision}-{METRIC_VERSION}"
    key += job.backbone.respacing.replace(", ", "-").replace(" ", "-")
    cell = Cell(job.plan.folder(suite) / f"schedule-{key}")
    with job.locked(cell):
        if not cell.rows():
            times = range(0, TIMESTEPS + 1, EVERY)
            values = (
                heard_log_snr(schedule, steps)[times]
                if steps
                else [float(schedule.log_snr(t)) for t in times]
            )
            cell.add_rows(
                [
                    _row(job, "log_snr", float(value), f"{key}-{t}", suite, "schedule", {"t": str(t)}, steps)
                    for t, value in zip(times, values, strict=True)
                    if np.isfinite(value)
                ]
            )
        return cell.rows()


def heard_log_snr(schedule: Schedule, steps: int) -> np.ndarray:
    """(1001,) log-SNR of the first latents that the network sees with a caption that changes from t on.

    They are those of the first sampling timestep below t, which at 50 steps is t - 1 in one model and t - 20
    in another. It is exact at `EDGES` and interpolated between them. Raises InputError as `step_blocks`.
    """
    first = [0.0, *(block[0][0] for block in step_blocks(schedule, steps))]
    heard = np.interp(np.arange(TIMESTEPS + 1), EDGES, first)
    return np.array([float(schedule.log_snr(t)) for t in heard])


def energy_rows(job: Job) -> list[Row]:
    """The rows of every factor and contrast; each is measured once and stored in a cell at once.

    An energy is the median squared distance of the latents of pairs that differ only in the factor. Measuring
    all takes about a minute and the VAE's encoder.
    """
    key, cell = _energy_cell(job.plan)
    with job.locked(cell):
        missing = _missing_energies(cell)
        with progress_bar(2 * PAIRS * len(missing), "energies", "video") as bar:

            def encode(video: np.ndarray) -> np.ndarray:
                bar.update()
                return job.backbone.encode(torch.from_numpy(video)[None]).float().cpu().numpy()

            for contrast, factor in missing:
                chroma = _chroma(job.plan)
                energy = energy_of(contrast, factor, encode, frames=job.plan.size[0], chroma=chroma).energy
                strata = {"contrast": contrast, "factor": factor}
                score_id = f"{key}-{contrast}-{factor}"
                cell.add_rows([_row(job, "energy", energy, score_id, "shapes", "energies", strata, 0)])
        return cell.rows()


def energy_videos(plan: JobPlan) -> int:
    """The number of videos that `energy_rows` still has to encode."""
    return 2 * PAIRS * len(_missing_energies(_energy_cell(plan)[1]))


def _energy_cell(plan: JobPlan) -> tuple[str, Cell]:
    """The id of a model's energies, and their cell."""
    weights = plan.backbone.weights_hash
    key = energies_id(plan.size, METRIC_VERSION, weights_hash=weights, precision=plan.precision)
    key += "" if (chroma := _chroma(plan)) == 1 else f"-chroma-{chroma:g}"
    return key, Cell(plan.folder("shapes") / f"energies-{key}")


def _chroma(plan: JobPlan) -> float:
    """The factor of the objects' colour contrast in the world of a job's references."""
    scene = plan.references[0].truth
    return scene.chroma if isinstance(scene, Scene) else 1.0


def _missing_energies(cell: Cell) -> list[tuple[str, str]]:
    stored = {(row.strata["contrast"], row.strata["factor"]) for row in cell.rows()}
    return [kind for kind in KINDS if kind not in stored]


def _row(
    job: Job,
    metric: str,
    value: float,
    score_id: str,
    suite: str,
    reference: str,
    strata: Mapping[str, str],
    steps: int,
) -> Row:
    """A row of the model itself. `reference` is the name of the measurement, and also its method."""
    settings = {"model": asdict(job.plan.model), "frames": job.plan.size[0]}
    # The rows of a probe name the shift of its sampling steps, which are those of the schedule's rows.
    if steps and (shift := job.plan.row_settings.get("shift")) is not None:
        settings["shift"] = shift
    return Row(
        metric=metric,
        metric_version=METRIC_VERSION,
        value=value,
        score_id=score_id,
        suite=suite,
        reference=reference,
        strata=dict(strata),
        method=reference,
        tau=1000.0,
        steps=steps,
        settings=settings,
        **job.origin(),
    )
