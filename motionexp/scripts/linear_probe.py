"""The linear probe of backbones: `python -m motionexp.scripts.linear_probe [OVERRIDES] [--train N] ...`.

Motion and looks of videos of the bundled world, read from x_t alone and from the backbone's blocks at
t = 0, 100, ..., 999, against the ideal observer; see `probes/linear_probe.py`. Takes the models that the
overrides choose (`model=NAME,NAME`), or every bundled one in turn. Writes rows, tables and figures to
`outputs/linear/`; a timestep whose rows are there is not read again. `experiments/linear-probe.yaml` says how
the rows are published.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.config.compose import load
from motionexp.config.schema import JobConfig
from motionexp.data.base import Reference
from motionexp.data.shapes import grammar
from motionexp.data.shapes.energies import pairs
from motionexp.data.shapes.render import FPS, FRAMES, render
from motionexp.data.shapes.scenes import Scene
from motionexp.diffusion.backbone import Conditioning
from motionexp.errors import InputError
from motionexp.jobs.encoding_cache import EncodingCache
from motionexp.jobs.job import Job
from motionexp.jobs.probe_rows import schedule_rows
from motionexp.jobs.run import clear_disk_errors, duration
from motionexp.probes import linear_probe
from motionexp.probes.analysis import linear_figures, linear_tables
from motionexp.probes.analysis.linear_rows import ACCURACY, BLOCKS, TWO_ALTERNATIVE, metric_of
from motionexp.probes.block_features import VIDEOS_PER_CALL, motion_blocks
from motionexp.probes.linear_probe import OBSERVER, TARGETS, TIMESTEPS, Probe
from motionexp.results.formats import to_markdown
from motionexp.results.rows import ROWS_NAME, Row, append_rows, read_rows
from motionexp.scripts.model_jobs import jobs_of

METRIC_VERSION = 1
GROUPS = 20
"""Test videos, and pairs, are averaged in so many groups: the references over which intervals are drawn."""
LEAST_TRAIN = 4 * len(grammar.CAPTIONED)


@dataclass(frozen=True)
class Options:
    """How many videos of each contrast are taken, pairs of each attribute, and noises of a training video.

    For the same number of evaluations more videos teach more than more noises of each: the noise averages out
    alike, and so does what the videos differ in besides.
    """

    train: int
    test: int
    pairs: int
    draws: int

    def strata(self) -> dict[str, str]:
        """As rows have them: those of other numbers are of another run."""
        return {name: str(number) for name, number in vars(self).items()}

    def encoded(self) -> int:
        """How many videos of a contrast are encoded."""
        return self.train + self.test + 2 * self.pairs * len(TARGETS)

    def evaluations(self) -> int:
        """How many videos go through the network for one timestep."""
        return self.draws * self.train + self.test


class Videos:
    """Latents of scenes, encoded once and kept on disk; `bar` moves on by one for each scene."""

    def __init__(self, job: Job, bar: "tqdm[Any]") -> None:
        self.cache = EncodingCache(folder(job.cfg) / "cache", job.backbone, job.precision)
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


def folder(cfg: JobConfig) -> Path:
    """Where rows, tables, figures and latents of all models go."""
    return Path(cfg.output).expanduser() / "linear"


def empty_caption(job: Job) -> Conditioning:
    """The empty caption, as long as a caption is: alone, some networks have never seen it."""
    like, empty = (job.cache.conditioning(each) for each in (job.references[0].caption, ""))
    return job.backbone.guidance_pair(like, empty)[0]


@dataclass(frozen=True, eq=False)
class Part:
    """One model's videos of one contrast, and the timesteps at which they are still to be read.

    Attributes:
        job: of the model.
        contrast: `motion-dominant` or `appearance-dominant`.
        options: how many videos.
        left: timesteps.
        seconds: estimates: of encoding all videos, and of one timestep.
    """

    job: Job
    contrast: str
    options: Options
    left: Sequence[int]
    seconds: tuple[float, float]

    @property
    def total(self) -> float:
        """Estimated seconds of all that is left."""
        encoding, reading = self.seconds
        return encoding + reading * len(self.left) if self.left else 0.0

    def prepare(self) -> tuple[Probe, dict[str, Tensor]]:
        """Encode the videos; returns the probe, and {target: distances of pairs} for the ideal observer."""
        backbone, options = self.job.backbone, self.options
        train, test = (
            linear_probe.scenes(part, self.contrast, count)
            for part, count in (("train", options.train), ("test", options.test))
        )
        with progress_bar(options.encoded(), f"encode, {self.contrast}") as bar:
            known = Videos(self.job, bar)
            distances = {target: known.distances(self.contrast, target, options.pairs) for target in TARGETS}
            caption = empty_caption(self.job)
            probe = Probe(
                *(backbone, caption, motion_blocks(backbone, caption)),
                train=torch.stack([known.latents(scene) for scene in train]),
                test=torch.stack([known.latents(scene) for scene in test]),
                known=linear_probe.labels(train),
                truth=linear_probe.labels(test),
                draws=options.draws,
            )
        return probe, distances

    def read(self, probe: Probe, distances: dict[str, Tensor], t: int) -> list[Row]:
        """The rows of one timestep."""
        rows = RowMaker(self, probe, t)
        made: list[Row] = []
        for target, each in distances.items():
            values = linear_probe.ideal_observer(self.job.backbone.schedule, each, t)
            made += rows.make(OBSERVER, target, TWO_ALTERNATIVE, values)
        with progress_bar(probe.evaluations(), f"read, {self.contrast}, t = {t}") as bar:
            for features, found in probe.read(t, bar.update).items():
                for target, scores in found.items():
                    truth = probe.truth[target]
                    right = linear_probe.two_alternative(scores, truth)
                    made += rows.make(features, target, TWO_ALTERNATIVE, right)
                    made += rows.make(features, target, ACCURACY, linear_probe.correct(scores, truth))
        return made


def progress_bar(total: int, what: str) -> "tqdm[Any]":
    """Of videos. In a log file the bar is a line, and one every half minute is enough."""
    often = 0.1 if sys.stderr.isatty() else 30
    return tqdm(total=total, desc=what, unit="video", leave=False, mininterval=often)


class RowMaker:
    """Rows of one backbone, contrast and timestep."""

    def __init__(self, part: Part, probe: Probe, t: int) -> None:
        job, cfg = part.job, part.job.cfg
        blocks = dict(zip(BLOCKS[-len(probe.blocks) :], probe.blocks, strict=True))
        self.places = {f"block {name}": place for place, name in blocks.items()}
        self.strata = {
            "contrast": part.contrast,
            "t": str(t),
            **part.options.strata(),
        }
        self.same: dict[str, Any] = {
            "metric_version": METRIC_VERSION,
            "higher_is_better": True,
            "suite": "shapes",
            "method": "linear_probe",
            "tau": 1000.0,
            "steps": 0,
            "settings": {
                "model": {"path": cfg.model.path, "revision": cfg.model.revision},
                "blocks": blocks,
            },
            **job.origin(),
        }

    def make(self, features: str, target: str, kind: str, values: Tensor) -> Iterator[Row]:
        """One row for each group of test videos, or of pairs of videos: its mean."""
        metric = metric_of(kind, self.places.get(features, features), target)
        videos = "pairs" if features == OBSERVER else "test"
        for numbers in np.array_split(np.arange(len(values)), GROUPS):
            name = f"{videos} {numbers[0] + 1:03d}-{numbers[-1] + 1:03d}"
            mean = float(values[torch.from_numpy(numbers)].mean())
            yield Row(metric=metric, value=mean, reference=name, strata=self.strata, **self.same)


def rows_of(job: Job, options: Options) -> list[Row]:
    """What there is of these weights, this precision and as many videos."""
    path, strata = folder(job.cfg) / ROWS_NAME, options.strata().items()
    wanted = (job.cfg.model.name, job.backbone.weights_hash, job.precision, METRIC_VERSION)
    return [
        row
        for row in (read_rows(path) if path.exists() else [])
        if (row.model, row.weights_hash, row.precision, row.metric_version) == wanted
        and strata <= row.strata.items()
    ]


def parts_of(job: Job, contrasts: Sequence[str], options: Options) -> list[Part]:
    """What is to be read of a model, with what it may take."""
    done = {(row.strata["contrast"], int(row.strata["t"])) for row in rows_of(job, options)}
    left = {name: [t for t in TIMESTEPS if (name, t) not in done] for name in contrasts}
    seconds = estimate(job, options) if any(left.values()) else (0.0, 0.0)
    return [Part(job, name, options, own, seconds) for name, own in left.items()]


@torch.no_grad()
def estimate(job: Job, options: Options) -> tuple[float, float]:
    """Seconds of encoding a contrast's videos, and of reading a timestep, from one video and one batch."""
    backbone, caption = job.backbone, empty_caption(job)
    shape = backbone.latent_shape(job.cfg.frames, backbone.height, backbone.width)
    x_t, captions = torch.zeros(VIDEOS_PER_CALL, *shape), caption.repeat(VIDEOS_PER_CALL)
    frames = torch.from_numpy(job.references[0].frames.copy())[None]
    backbone.predict(x_t[:1], 0, caption)
    start = perf_counter()
    # A GPU's work is done only when its result is here.
    backbone.encode(frames).cpu()
    between = perf_counter()
    backbone.predict(x_t, 0, captions).cpu()
    encoding, reading = between - start, (perf_counter() - between) / VIDEOS_PER_CALL
    return encoding * options.encoded(), reading * options.evaluations()


class Countdown:
    """Says before each part of the work what it is, and how long all may still take."""

    def __init__(self, total: float) -> None:
        self.total, self.done, self.start = total, 0.0, perf_counter()

    def say(self, what: str) -> None:
        """Print what comes now, and the time left: as estimated, times how wrong that was so far."""
        left, passed = self.total - self.done, perf_counter() - self.start
        ratio = passed / self.done if self.done else 1.0
        print(f"{what}; about {duration(left * ratio)} left", flush=True)


def run(parts: Sequence[Part]) -> None:
    """Read all that is left; every timestep's rows are kept at once."""
    countdown = Countdown(sum(part.total for part in parts))
    for part in (each for each in parts if each.left):
        name = f"{part.job.cfg.model.name}, {part.contrast}"
        encoding, reading = part.seconds
        countdown.say(f"{name}: {part.options.encoded()} videos to encode")
        probe, distances = part.prepare()
        countdown.done += encoding
        for t in part.left:
            countdown.say(f"{name}: t = {t}")
            append_rows(folder(part.job.cfg) / ROWS_NAME, part.read(probe, distances, t))
            countdown.done += reading


def show(output: Path, rows: Sequence[Row]) -> None:
    """Print what was read at the paper's timestep; write all tables and figures."""
    print(to_markdown(linear_tables.tables(rows)[""][0]))
    linear_tables.write(output / "linear-probe", rows)
    linear_figures.write(output / "figures", rows)
    print(f"rows, tables and figures: {output}")


def settings_of(overrides: Sequence[str]) -> JobConfig:
    """A job's settings, in fp32 unless they say otherwise."""
    return load(["precision=fp32", *overrides])


def options_of(arguments: Sequence[str]) -> tuple[list[str], list[str], Options]:
    """The overrides of jobs, the contrasts, and how many videos.

    Raises:
        InputError: too few videos.
    """
    parser = argparse.ArgumentParser(prog="python -m motionexp.scripts.linear_probe", description=__doc__)
    parser.add_argument("overrides", nargs="*", help="settings of a job, for instance model=tiny_latte")
    for name, default, meaning in (
        ("train", 480, "training videos of each contrast"),
        ("test", 200, "test videos of each contrast"),
        ("pairs", 20, "pairs of each attribute for the ideal observer"),
        ("draws", 1, "noises of each training video"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: {default})")
    parser.add_argument(
        *("--contrasts",), nargs="+", choices=grammar.CONTRASTS, default=grammar.CONTRASTS, metavar="CONTRAST"
    )
    parsed = parser.parse_intermixed_args(list(arguments))
    options = Options(parsed.train, parsed.test, parsed.pairs, parsed.draws)
    least = Options(LEAST_TRAIN, GROUPS, GROUPS, 1)
    for name, count in vars(least).items():
        if getattr(options, name) < count:
            raise InputError(f"--{name} {getattr(options, name)}: at least {count}")
    return parsed.overrides, list(dict.fromkeys(parsed.contrasts)), options


def main(arguments: Sequence[str]) -> int:
    """Probe the models of the overrides, or every bundled one; returns the exit code."""
    try:
        overrides, contrasts, options = options_of(arguments)
        jobs = [Job(cfg, Console(quiet=True)) for cfg in jobs_of(overrides, settings_of)]
        parts = [part for job in jobs for part in parts_of(job, contrasts, options)]
        if not jobs:
            return 0
        if jobs[0].cfg.dry_run:
            print(f"about {duration(sum(part.total for part in parts))}; dry_run=true, nothing is run")
            return 0
        with clear_disk_errors(jobs[0].cfg):
            run(parts)
            rows = [
                row for job in jobs for row in rows_of(job, options) if row.strata["contrast"] in contrasts
            ]
            show(folder(jobs[0].cfg), [*rows, *(row for job in jobs for row in schedule_rows(job, steps=0))])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
