"""What each paper's table costs on a laptop and on GPUs, for the lines between marks of `README.md`.

(`python -m motionexp.scripts.paper_costs`.) On a laptop the bundled models stand for the papers' backbones:
CPU seconds of a cell as measured (`results/bench/cells.md`), times the cells of the table's design. On GPUs
the arithmetic of the real networks' steps, as torch counts it, over a stated speed (`jobs.stated_costs`).
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np

from motionexp.config.compose import load
from motionexp.config.sampling import evaluations_of_step
from motionexp.config.schema import JobConfig
from motionexp.data.videos import write_mp4
from motionexp.files import ROOT, write_whole
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.stated_costs import PEAKS, SHARE, StepFlops, step_flops
from motionexp.results.formats import Grid
from motionexp.results.published import read_published
from motionexp.scripts.programs import exit_code

BENCH = ROOT / "results" / "bench" / "cells.parquet"
PAGE = ROOT / "README.md"
BEGIN, END = (
    "<!-- costs: `python -m motionexp.scripts.paper_costs` writes these lines -->",
    "<!-- end of costs -->",
)
CORES = 2
EDITS, REFERENCES = 4, 76
"""Of LOVEU-TGVE-2023, which both papers take whole."""
H200, A100 = "NVIDIA H200", "NVIDIA A100-SXM4-80GB"
SMALL = {"modelscope": "tiny_unet3d", "latte": "tiny_latte", "cogvideox_2b": "tiny_cogvideox"}
"""The bundled model of a backbone's family. The second paper does not say which CogVideoX it takes."""
PART, SAMPLES = "now", 4
"""The measured part of the bench, and the samples of its cells."""


@dataclass(frozen=True)
class Design:
    """A table of a paper: its backbones, trained settings and samples of an edit.

    `base` says whether the base model is a line. The first paper trains 200 steps and samples 50. The second
    one takes the numbers of each backbone, which it does not give: these are taken for it too.
    """

    table: str
    models: tuple[str, ...]
    trained: int
    samples: int
    base: bool = False


DESIGNS = (
    Design("first paper, Tables 1 and 2 (one window)", ("latte",), 1, 2),
    Design("second paper, Table 1 (5 τ)", ("modelscope", "latte", "cogvideox_2b"), 4, 4, base=True),
    Design("second paper, Table 4 (projections)", ("latte",), 2, 4),
    Design("second paper, Table 5 (rank)", ("latte",), 4, 4),
)


@cache
def planned(model: str) -> tuple[JobConfig, StepFlops]:
    """The settings of a real model's job, and the arithmetic of its steps; no weights are needed."""
    with TemporaryDirectory() as name:
        clip = Path(name) / "clip.mp4"
        write_mp4(clip, np.random.default_rng(0).integers(0, 256, (17, 64, 64, 3), dtype=np.uint8), fps=8)
        video = [f"video={clip}", "caption=a dog", 'edits=["a cat"]', "base_model=false"]
        cfg = load([f"model={model}", *video, "tau=700", "precision=bf16", "dry_run=true"])
        return cfg, step_flops(plan_job(cfg))


def gpu_hours(design: Design, gpu: str) -> float:
    """GPU-hours of a table, of training and sampling alone."""
    seconds = 0.0
    for model in design.models:
        (cfg, flops), cells = planned(model), design.trained * REFERENCES
        samples = (design.trained + design.base) * REFERENCES * EDITS * design.samples
        evaluations = evaluations_of_step(cfg.guidance_scale, cfg.stg_scale)
        total = cells * cfg.train_steps * cfg.batch_size * flops.training
        total += samples * cfg.steps * evaluations * flops.forward
        seconds += total / (PEAKS[gpu] * SHARE)
    return seconds / 3600


def laptop_hours(design: Design, seconds_of: Callable[[str], tuple[float, float]]) -> float:
    """Hours of a table's design on `CORES` cores, with the bundled models in the backbones' place.

    `seconds_of` returns the CPU seconds of a model's training step, and of the rest of a cell of 4 samples.
    """
    seconds = 0.0
    for model in design.models:
        small = SMALL[model]
        step, rest = seconds_of(small)
        cells, samples = design.trained * REFERENCES, EDITS * design.samples
        steps = load([f"model={small}"]).train_steps
        seconds += cells * steps * step + (cells + design.base * REFERENCES) * rest * samples / SAMPLES
    return seconds / CORES / 3600


def measured(model: str) -> tuple[float, float]:
    """Means over the rounds of the bench: CPU seconds of a training step, and of the rest of a cell."""
    of_model = [row for row in read_published(BENCH) if row.model == model]
    rows = [row for row in of_model if row.strata.get("part") == PART]
    step = fmean(row.value for row in rows if row.metric == "step_cpu_seconds")
    return step, fmean(row.value for row in rows if row.metric == "rest_cpu_seconds")


def lines(seconds_of: Callable[[str], tuple[float, float]] = measured) -> str:
    """The table in Markdown, with its notes."""
    texts = []
    for design in DESIGNS:
        cells = len(design.models) * (design.trained + design.base) * REFERENCES
        samples = cells * EDITS * design.samples
        hours = (laptop_hours(design, seconds_of), gpu_hours(design, H200), gpu_hours(design, A100) / 8)
        texts.append((design.table, f"{cells:,}", f"{samples:,}", *map(_time, hours)))
    header = ("table", "cells", "samples", f"{CORES} cores, bundled models", "one H200", "eight A100")
    notes = (
        f"Cells are models x settings x {REFERENCES} references. Samples are cells x {EDITS} edits x the"
        f" samples of an edit: {_samples_of_edits()}. Lines of other systems are reported, and cost nothing.",
        "The bundled models: the CPU seconds of a cell as [measured](results/bench/cells.md), times the"
        " cells, over the cores. Nothing of this was run as a whole.",
        "GPUs are **computed, not measured**: torch's count of FLOP of 200 training and 50 sampling steps in"
        f" bf16, at {SHARE:.0%} of the peak, which is the first paper's speed. VAE, loading and scores are"
        " not counted. `precision=fp32`, as in `experiment=tau`, takes 15 times as long on an H200.",
    )
    return "\n".join([Grid(header, texts, "lr").markdown(), "", *(f"- {note}" for note in notes)])


def _samples_of_edits() -> str:
    """The samples of an edit in each paper's tables."""
    counts = dict.fromkeys((design.samples, design.table.partition(",")[0]) for design in DESIGNS)
    return ", ".join(f"{count} in the {paper}" for count, paper in counts)


def _time(hours: float) -> str:
    """A time in few digits: minutes below an hour."""
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Write the lines between the marks of the page."""
    text = PAGE.read_text()
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    write_whole(PAGE, f"{before}{BEGIN}\n\n{lines()}\n\n{after}".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
