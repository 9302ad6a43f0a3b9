"""The pictures of a probe's job: figures of its rows, and a strip of decoded inverted latents."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from motionexp.data.videos import side_by_side
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.jobs.job import Job
from motionexp.probes.analysis.boundary import in_words
from motionexp.probes.analysis.figures import write_figures
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.timesteps import EDGES
from motionexp.results.rows import Row


def show_figures(job: Job, kind: str, folder: Path, methods: Sequence[str], rows: Sequence[Row]) -> None:
    """Draw the figures of a job's rows, as `make figures` does for published rows, and print the boundary.

    Args:
        job: of the model.
        kind: the probe that the job ran.
        folder: gets the figures.
        methods: the probes' names in rows.
        rows: of all pairs of these probes, of the schedule, and of energies if there are any.
    """
    analysis = Analysis.of_rows(rows)
    lines = [
        f"{', '.join(filter(None, ('boundary', contrast)))}: {in_words(boundary, analysis.log_snr[model])}"
        for (model, contrast), boundary in analysis.boundaries.items()
    ] or ["boundary: undetermined; it takes probe=tampering with edits of appearance and motion"]
    drawn = write_figures(folder, analysis, f"A job of probe={kind} drew them from its own rows alone.")
    lines.append(f"figures: {folder}" if drawn else f"figures: there are none of {' and '.join(methods)}")
    job.console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def strip_timesteps(timesteps: Iterable[float]) -> list[float]:
    """Those of the timesteps, in descending order, that are nearest to t = 900, 800, ..., 0, for `strip`."""
    ascending = sorted(timesteps)
    return [min(ascending, key=lambda t: abs(t - edge)) for edge in reversed(EDGES[:-1])]


def strip(
    backbone: Backbone, inverted: Mapping[float, Tensor], conditioning: Conditioning, prompt: str
) -> np.ndarray:
    """Inverted latents and the model's x_0 at them, decoded, at t = 900, 800, ..., 0 from left to right.

    Figure 2 of "Video Diffusion Models Encode Motion in Early Timesteps" shows the first of the two.

    Args:
        backbone: decodes and predicts.
        inverted: {timestep: latents (1, C, F, h, w)} of one video; the nearest timesteps are shown.
        conditioning: of the inversion; x_0 is predicted with it, without guidance.
        prompt: the conditioning in words.

    Returns:
        (H, W, 3) uint8: two rows for each of two frames, a quarter from the start and from the end.
    """
    schedule, labels = backbone.schedule, []
    latents: list[np.ndarray] = []
    predictions: list[np.ndarray] = []
    for t in strip_timesteps(inverted):
        x0 = schedule.to_x0(inverted[t], backbone.predict(inverted[t], t, conditioning), t)
        labels.append(f"t = {t:.0f}, log-SNR {schedule.log_snr(t):.1f}")
        latents.append(backbone.decode(inverted[t])[0].numpy())
        predictions.append(backbone.decode(x0)[0].numpy())
    count = len(latents[0])
    rows = [
        (f"frame {index + 1} of {count}: {what}", [video[index : index + 1] for video in videos])
        for index in (count // 4, 3 * count // 4)
        for what, videos in (
            (f"latents x_t, inverted with {prompt}, decoded", latents),
            ("x_0 that the model predicts from x_t, decoded", predictions),
        )
    ]
    return side_by_side(rows, labels)[0]
