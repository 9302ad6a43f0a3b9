"""The linear probe of a backbone: `python -m motionexp.report.linear_probe [OVERRIDES] [--train N] ...`.

Motion and looks of videos of the bundled world, read from x_t alone and from the backbone's blocks at
t = 0, 100, ..., 999, against the ideal observer; see `motionexp/probes/linear.py`. Prints tables, and writes
rows and figures to `outputs/linear/`.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.atlas.drawing import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SETTINGS,
    VERMILION,
    log_snr_axis,
    new_figure,
    save,
    timestep_axis,
)
from motionexp.compose import load
from motionexp.config import InputError, JobConfig
from motionexp.data.base import Reference
from motionexp.data.shapes import grammar
from motionexp.data.shapes.energies import pairs
from motionexp.data.shapes.render import FPS, FRAMES, render
from motionexp.data.shapes.scenes import Scene
from motionexp.intervals import Interval, mean_interval
from motionexp.jobs import provenance
from motionexp.jobs.cache import EncodingCache
from motionexp.jobs.running import Job
from motionexp.probes import linear
from motionexp.probes.features import motion_blocks
from motionexp.probes.linear import OBSERVER, TARGETS, TIMESTEPS, X_T, X_T_CLEAN, Probe
from motionexp.results import ROWS_NAME, Row, append_rows, read_rows
from motionexp.schedule import TIMESTEPS as ALL_TIMESTEPS

METRIC_VERSION = 1
TWO_ALTERNATIVE, ACCURACY = "two_alternative_accuracy", "accuracy"
GROUPS = 20
"""Test videos, and pairs, are averaged in so many groups: the references over which intervals are drawn."""
LEAST_TRAIN = 4 * len(grammar.NAMEABLE)
STYLES: Sequence[dict[str, Any]] = (
    {"color": ORANGE, "marker": "^", "linestyle": "-"},
    {"color": BLUE, "marker": "s", "linestyle": "-"},
    {"color": VERMILION, "marker": "D", "linestyle": "-"},
)
"""Of the early, the middle and the late block."""
OTHER_STYLES: Mapping[str, dict[str, Any]] = {
    OBSERVER: {"color": GREY, "linestyle": "-", "linewidth": 3.0},
    X_T_CLEAN: {"color": BLACK, "marker": "o", "linestyle": "-"},
    X_T: {"color": BLACK, "marker": "o", "linestyle": ":", "markerfacecolor": "white"},
}


class Videos:
    """Latents of scenes, encoded once and kept on disk; `bar` moves on by one for each scene."""

    def __init__(self, job: Job, bar: "tqdm[Any]") -> None:
        self.cache = EncodingCache(folder(job) / "cache", job.backbone, job.precision)
        self.frames, self.bar = job.cfg.frames, bar

    def latents(self, scene: Scene) -> Tensor:
        """(C, F, h, w) on the CPU."""
        self.bar.update()
        period = FRAMES if self.frames == FRAMES + 1 else None
        frames = render(scene, self.frames, period=period)
        return self.cache.latents(Reference("", "shapes", frames, FPS, caption="", edits=()))[0].cpu()

    def distances(self, contrast: str, target: str, count: int) -> Tensor:
        """(P,) Euclidean distances of pairs of videos that differ in one attribute alone."""
        found = [
            torch.dist(self.latents(first), self.latents(second))
            for first, second in pairs(contrast, target, count)
        ]
        return torch.stack(found)


def folder(job: Job) -> Path:
    """Where rows, figures and latents of all models go."""
    return job.output / "linear"


def measure(job: Job, contrast: str, options: argparse.Namespace) -> list[Row]:
    """Read all attributes at all timesteps of one contrast's test videos; make the rows."""
    backbone, train = job.backbone, linear.scenes("train", contrast, options.train)
    test = linear.scenes("test", contrast, options.test)
    videos = len(train) + len(test) + 2 * options.pairs * len(TARGETS)
    with tqdm(total=videos, desc=f"encode, {contrast}", unit="video", leave=False) as bar:
        known = Videos(job, bar)
        like, empty = known.cache.conditioning(train[0].caption), known.cache.conditioning("")
        # As long as a caption is: alone, some networks have never seen it.
        caption = backbone.guidance_pair(like, empty)[0]
        distances = {target: known.distances(contrast, target, options.pairs) for target in TARGETS}
        probe = Probe(
            *(backbone, caption, motion_blocks(backbone, caption)),
            train=torch.stack([known.latents(scene) for scene in train]),
            test=torch.stack([known.latents(scene) for scene in test]),
            known=linear.labels(train),
            truth=linear.labels(test),
            draws=options.draws,
        )
    rows = RowMaker(job, contrast, options)
    made: list[Row] = []
    evaluations = probe.evaluations() * len(TIMESTEPS)
    with tqdm(total=evaluations, desc=f"read, {contrast}", unit="video", leave=False) as bar:
        for t in TIMESTEPS:
            for target, each in distances.items():
                values = linear.ideal_observer(backbone.schedule, each, t)
                made += rows.make(t, OBSERVER, target, TWO_ALTERNATIVE, values)
            for features, found in probe.read(t, bar.update).items():
                for target, scores in found.items():
                    truth = probe.truth[target]
                    right = linear.two_alternative(scores, truth)
                    made += rows.make(t, features, target, TWO_ALTERNATIVE, right)
                    made += rows.make(t, features, target, ACCURACY, linear.correct(scores, truth))
    return made


class RowMaker:
    """Rows of one backbone and contrast."""

    def __init__(self, job: Job, contrast: str, options: argparse.Namespace) -> None:
        self.contrast, self.log_snr = contrast, job.backbone.schedule.log_snr
        commit, dirty = provenance.commit()
        self.same: dict[str, Any] = {
            "metric_version": METRIC_VERSION,
            "higher_is_better": True,
            "suite": "shapes",
            "model": job.cfg.model.name,
            "method": "linear_probe",
            "tau": 1000.0,
            "steps": 0,
            "settings": {
                "model": {"path": job.cfg.model.path, "revision": job.cfg.model.revision},
                **{name: getattr(options, name) for name in ("train", "test", "pairs", "draws")},
            },
            "commit": commit,
            "dirty": dirty,
            "packages": provenance.packages(),
            "device": provenance.device_name(job.device),
            "precision": job.precision,
            "weights_hash": job.backbone.weights_hash,
        }

    def make(self, t: int, features: str, target: str, metric: str, values: Tensor) -> Iterator[Row]:
        """One row for each group of test videos, or of pairs of videos: its mean."""
        strata = {
            "contrast": self.contrast,
            "features": features,
            "target": target,
            "t": str(t),
            "log_snr": f"{float(self.log_snr(t)):.2f}",
        }
        kind = "pairs" if features == OBSERVER else "test"
        for numbers in np.array_split(np.arange(len(values)), GROUPS):
            name = f"{kind} {numbers[0] + 1:03d}-{numbers[-1] + 1:03d}"
            mean = float(values[torch.from_numpy(numbers)].mean())
            yield Row(metric=metric, value=mean, reference=name, strata=strata, **self.same)


def keep(path: Path, rows: Sequence[Row]) -> None:
    """Write rows in place of what the file has of their model and contrast."""
    new = {(row.model, row.stratum("contrast")) for row in rows}
    before = read_rows(path) if path.exists() else []
    others = [row for row in before if (row.model, row.stratum("contrast")) not in new]
    path.unlink(missing_ok=True)
    append_rows(path, [*others, *rows])


def intervals(rows: Sequence[Row], metric: str) -> dict[tuple[str, str, int], Interval]:
    """{(features, target, t): mean with its interval over groups} of one model and contrast."""
    grouped: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if row.metric == metric:
            key = (row.stratum("features"), row.stratum("target"), int(row.stratum("t")))
            grouped.setdefault(key, []).append(row)
    return {
        key: mean_interval([row.value for row in each], [row.reference for row in each])
        for key, each in grouped.items()
    }


def print_rows(rows: Sequence[Row]) -> None:
    """Print a table for each kind of features: right of two classes with its interval, and right of all."""
    two, all_classes = intervals(rows, TWO_ALTERNATIVE), intervals(rows, ACCURACY)
    log_snr = {int(row.stratum("t")): row.stratum("log_snr") for row in rows}
    first = rows[0]
    for features in dict.fromkeys(key[0] for key in two):
        table = Table("t (log-SNR)", *TARGETS, title_justify="left")
        table.title = f"{first.model}, {first.stratum('contrast')}: {features}"
        for t in log_snr:
            cells = []
            for target in TARGETS:
                found, of_all = two[features, target, t], all_classes.get((features, target, t))
                share = "" if of_all is None else f" {of_all.mean:.0%}"
                cells.append(f"{found.mean:.2f} ±{(found.high - found.low) / 2:.2f}{share}")
            table.add_row(f"{t} ({log_snr[t]})", *cells)
        shares = [f"{1 / len(classes):.0%}" for classes in TARGETS.values()]
        chance = ["0.50" if features == OBSERVER else f"0.50 {share}" for share in shares]
        table.add_row("chance", *chance)
        Console().print(table)
    print("right of two classes ± half of the 95% interval, and right of all classes")


def figure(rows: Sequence[Row], log_snr: np.ndarray) -> Figure:
    """How often each attribute is read right of two classes, against t: a panel for each attribute.

    Args:
        rows: of one model and contrast.
        log_snr: (1001,) of the model's schedule at t = 0, 1, ... 1000.
    """
    found = intervals(rows, TWO_ALTERNATIVE)
    drawn, axes = new_figure(3, 2, 6.4, sharex=True, sharey=True)
    for number, (axis, target) in enumerate(zip(axes.flat, TARGETS, strict=False)):
        handles = _panel(axis, {key[::2]: each for key, each in found.items() if key[1] == target})
        timestep_axis(axis)
        if number < 2:
            log_snr_axis(axis, log_snr)
        # Below the fourth panel there is none that could carry its axis.
        axis.tick_params(labelbottom=number >= 3)
        axis.set_xlabel(axis.get_xlabel() if number >= 3 else "")
        axis.set_title(target)
    for row in axes:
        row[0].set_ylabel("right of two classes")
    axes[-1, -1].axis("off")
    names = [textwrap.fill(name, 40) for name in handles]
    axes[-1, -1].legend(list(handles.values()), names, loc="center")
    return drawn


def _panel(axis: Axes, found: Mapping[tuple[str, int], Interval]) -> dict[str, Any]:
    """Draw one attribute's curves with their intervals, chance below; returns {features: line}."""
    axis.axhline(0.5, color=BLACK, linewidth=0.6, linestyle=(0, (1, 3)))
    axis.set_ylim(0.4, 1.02)
    names = list(dict.fromkeys(features for features, _ in found))
    blocks = [name for name in names if name not in OTHER_STYLES]
    lines = {}
    for name in names:
        style = OTHER_STYLES[name] if name in OTHER_STYLES else STYLES[blocks.index(name)]
        own = {t: each for (features, t), each in found.items() if features == name}
        low, high = [each.low for each in own.values()], [each.high for each in own.values()]
        axis.fill_between(list(own), low, high, color=style["color"], alpha=0.15, linewidth=0)
        (lines[name],) = axis.plot(list(own), [each.mean for each in own.values()], **style)
    return lines


def settings_of(arguments: Sequence[str]) -> tuple[JobConfig, argparse.Namespace]:
    """The job's settings, in fp32 unless they say otherwise, and the probe's own.

    Raises:
        InputError: too few videos, or what `compose.load` finds.
    """
    parser = argparse.ArgumentParser(prog="python -m motionexp.report.linear_probe", description=__doc__)
    parser.add_argument("overrides", nargs="*", help="settings of a job, for instance model=tiny_latte")
    parser.add_argument("--train", type=int, default=800, help="training videos of each contrast")
    parser.add_argument("--test", type=int, default=300, help="test videos of each contrast")
    parser.add_argument(
        "--pairs", type=int, default=100, help="pairs of each attribute for the ideal observer"
    )
    parser.add_argument("--draws", type=int, default=4, help="noises of each training video")
    parser.add_argument(
        *("--contrasts",), nargs="+", choices=grammar.CONTRASTS, default=grammar.CONTRASTS, metavar="CONTRAST"
    )
    options = parser.parse_intermixed_args(list(arguments))
    least = {"train": LEAST_TRAIN, "test": GROUPS, "pairs": GROUPS, "draws": 1}
    for name, count in least.items():
        if getattr(options, name) < count:
            raise InputError(f"--{name} {getattr(options, name)}: at least {count}")
    return load(["precision=fp32", *options.overrides]), options


def main(arguments: Sequence[str]) -> int:
    """Probe the model of the overrides (default: the bundled one); returns the exit code."""
    try:
        cfg, options = settings_of(arguments)
        job = Job(cfg, Console(quiet=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    log_snr = job.backbone.schedule.log_snr(torch.arange(ALL_TIMESTEPS + 1)).double().numpy()
    for contrast in dict.fromkeys(options.contrasts):
        rows = measure(job, contrast, options)
        keep(folder(job) / ROWS_NAME, rows)
        print_rows(rows)
        with matplotlib.rc_context(SETTINGS):
            files = save(figure(rows, log_snr), folder(job) / f"{cfg.model.name}-{contrast}")
        print(f"figure: {' '.join(map(str, files))}")
    print(f"rows: {folder(job) / ROWS_NAME}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
