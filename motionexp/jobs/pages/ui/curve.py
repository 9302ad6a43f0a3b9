"""The probe's curve of a model, with tau in it, as a picture. No torch."""

import io
import threading
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from motionexp.config.schema import JobConfig
from motionexp.files import ROOT
from motionexp.probes.analysis.boundary import Boundary
from motionexp.probes.analysis.model_figures import shares
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.results.figures.style import SETTINGS
from motionexp.results.published import read_published
from motionexp.results.rows import Row

ROWS = "results/shapes/probe-*.parquet"
"""The published rows of the probes of the bundled models."""
CONTRAST = "motion-dominant"
# matplotlib has one state for all threads.
DRAWING = threading.Lock()


@cache
def _published(model: str) -> tuple[Boundary, Analysis] | None:
    """What the published probes say of a model; None: it was not probed, or the rows are not installed."""
    rows = [row for path in sorted(ROOT.glob(ROWS)) for row in _rows(path) if row.model == model]
    analysis = Analysis.of_rows(rows)
    boundary = analysis.boundaries.get((model, CONTRAST)) if rows else None
    return (boundary, analysis) if boundary is not None else None


@cache
def _rows(path: Path) -> list[Row]:
    return list(read_published(path))


def curve(model: str, tau: float) -> bytes | None:
    """An SVG: shares of appearance and motion that a changed caption below t changes, and tau in it.

    None: no probe of the model is published.
    """
    with DRAWING:
        published = _published(model)
        return None if published is None else _drawn(model, tau, *published)


def _drawn(model: str, tau: float, boundary: Boundary, analysis: Analysis) -> bytes:
    with matplotlib.rc_context(SETTINGS):
        figure: Figure = shares({(model, CONTRAST): boundary}, analysis.log_snr)
        axis = figure.axes[0]
        # As the slider beside it; figures elsewhere start from noise.
        axis.set_xlim(0, 1000)
        axis.set_xlabel("timestep t (clean → noise)")
        axis.axvspan(tau, 1000, color="tab:green", alpha=0.12, linewidth=0, zorder=0)
        axis.axvline(tau, color="tab:green", linewidth=1.5)
        memory = io.BytesIO()
        figure.savefig(memory, format="svg")
    return memory.getvalue()


def in_words(cfg: JobConfig) -> str:
    """What is known of a model's boundary, in two sentences."""
    model = cfg.model
    words = f"The default τ of {model.name} is {model.default_tau:g}."
    if model.boundary is None:
        return f"{words} No probe of {model.name} is stored; run.py probe=tampering finds its boundary."
    return f"{words} Its probe found the boundary between motion and appearance at t = {model.boundary:g}."
