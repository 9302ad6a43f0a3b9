"""The linear probe of backbones: `python -m motionexp.scripts.linear_probe [OVERRIDES] [--train N] ...`.

Reads motion and appearance of videos of the bundled world from x_t and from the backbone's blocks at t = 0,
100, ..., 999, and compares with an ideal observer; see `probes/linear_probe.py`. Takes the models that the
overrides choose (`model=NAME,NAME`), or every bundled one in turn. Writes rows, tables and figures to
`outputs/linear/`; a timestep with rows is not read again. `experiments/linear-probe.yaml` says how the rows
are published.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
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
from motionexp.diffusion.progress import progress_bar
from motionexp.errors import InputError
from motionexp.jobs.encoding_cache import EncodingCache
from motionexp.jobs.job import Job
from motionexp.jobs.probe_rows import schedule_rows
from motionexp.jobs.run import clear_disk_errors, duration
from motionexp.probes import linear_probe
from motionexp.probes.analysis import linear_figures, linear_tables
from motionexp.probes.analysis.linear_rows import (
    ACCURACY,
    BLOCKS,
    OBSERVER,
    TARGETS,
    TIMESTEPS,
    TWO_ALTERNATIVE,
    metric_of,
)
from motionexp.probes.block_features import VIDEOS_PER_CALL, motion_blocks
from motionexp.probes.linear_probe import LinearProbe
from motionexp.results.formats import to_markdown
from motionexp.results.rows import ROWS_NAME, Row, append_rows
from motionexp.scripts.programs import RowFile, exit_code, jobs_of

METRIC_VERSION = 1
GROUPS = 20
"""Number of groups of test videos, and of pairs: the intervals resample groups in place of references."""


@dataclass(frozen=True)
class Options:
    """Numbers of videos of each contrast, of pairs of each attribute, and of noises of a training video.

    At an equal number of evaluations, more videos are better than more noises of each video: both average the
    noise out, and only more videos average out their other differences.
    """

    train: int
    test: int
    pairs: int
    draws: int

    def strata(self) -> dict[str, str]:
        """The strata of the rows; rows with different numbers belong to another run."""
        return {name: str(number) for name, number in vars(self).items()}


def encoded(job: Job, scenes: Iterable[Scene], bar: "tqdm[Any]") -> Tensor:
    """Latents of scenes (N, C, F, h, w) on the CPU, encoded once and stored on disk."""
    cache, latents = EncodingCache(folder(job) / "cache", job.backbone, job.precision), []
    # A 3D VAE needs 4k + 1 frames: the motion then runs once in the first 4k.
    period = FRAMES if job.plan.size[0] == FRAMES + 1 else None
    for scene in scenes:
        bar.update()
        frames = render(scene, job.plan.size[0], period=period)
        reference = Reference("", "shapes", frames, FPS, caption="", edits=())
        latents.append(cache.latents(reference)[0].cpu())
    return torch.stack(latents)


def folder(job: Job) -> Path:
    """The folder of rows, tables, figures and latents of all models."""
    return job.output / "linear"


def row_file(job: Job, options: Options) -> RowFile:
    """The rows of a model with these numbers of videos."""
    return RowFile(folder(job) / ROWS_NAME, job, METRIC_VERSION, options.strata())


@dataclass(frozen=True, eq=False)
class Task:
    """One model's videos of one contrast, and the timesteps without rows.

    Attributes:
        job: of the model.
        contrast: `motion-dominant` or `appearance-dominant`.
        options: numbers of videos.
        timesteps: the missing ones.
    """

    job: Job
    contrast: str
    options: Options
    timesteps: Sequence[int]

    @property
    def videos(self) -> int:
        """Number of videos that are encoded, plus those that go through the network."""
        return sum(self.counts)

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of videos that are encoded, and that go through the network."""
        if not self.timesteps:
            return 0, 0
        options = self.options
        encoded = options.train + options.test + 2 * options.pairs * len(TARGETS)
        return encoded, (options.draws * options.train + options.test) * len(self.timesteps)

    @torch.no_grad()
    def seconds(self) -> float:
        """Estimated time, from one encoded video and one batch of the network."""
        backbone = self.job.backbone
        conditioning = backbone.embed([""] * VIDEOS_PER_CALL)
        frames = torch.from_numpy(self.job.references[0].frames.copy())[None]
        noise = torch.zeros_like(backbone.encode(frames)).repeat(VIDEOS_PER_CALL, 1, 1, 1, 1)
        backbone.predict(noise[:1], 0, conditioning[:1])  # loads the weights
        # A GPU's work is done only when its result is here.
        start = perf_counter()
        backbone.encode(frames).cpu()
        between = perf_counter()
        backbone.predict(noise, 0, conditioning).cpu()
        encoded, read = self.counts
        return encoded * (between - start) + read * (perf_counter() - between) / VIDEOS_PER_CALL

    def run(self, bar: "tqdm[Any]") -> None:
        """Read every missing timestep; its rows are written at once."""
        if not self.timesteps:
            return
        name = f"{self.job.plan.model.name}, {self.contrast}"
        bar.set_description(f"{name}: encode")
        probe, distances = self.prepare(bar)
        for t in self.timesteps:
            bar.set_description(f"{name}: t = {t}")
            append_rows(row_file(self.job, self.options).path, self.read(probe, distances, t, bar))

    def prepare(self, bar: "tqdm[Any]") -> tuple[LinearProbe, dict[str, Tensor]]:
        """Encode the videos.

        Returns:
            The probe, and {target: (P,) distances of pairs of videos that differ in it alone}, for the ideal
            observer.
        """
        backbone, options = self.job.backbone, self.options
        train = linear_probe.scenes("train", self.contrast, options.train)
        test = linear_probe.scenes("test", self.contrast, options.test)
        distances = {}
        for target in TARGETS:
            both = [encoded(self.job, pair, bar) for pair in pairs(self.contrast, target, options.pairs)]
            distances[target] = torch.stack([torch.dist(first, second) for first, second in both])
        # In the layout of guidance: some networks were never trained on the empty caption alone.
        texts = (self.job.references[0].caption, "")
        caption, _ = backbone.guidance_pair(*map(self.job.cache.conditioning, texts))
        probe = LinearProbe(
            *(backbone, caption, motion_blocks(backbone, caption)),
            train=encoded(self.job, train, bar),
            test=encoded(self.job, test, bar),
            train_labels=linear_probe.labels(train),
            test_labels=linear_probe.labels(test),
            draws=options.draws,
        )
        return probe, distances

    def read(self, probe: LinearProbe, distances: dict[str, Tensor], t: int, bar: "tqdm[Any]") -> list[Row]:
        """The rows of one timestep."""
        rows: list[Row] = []
        for target, distance in distances.items():
            values = linear_probe.ideal_observer(self.job.backbone.schedule, distance, t)
            rows += self.rows(probe, t, metric_of(TWO_ALTERNATIVE, OBSERVER, target), values)
        # The blocks' names in rows are their places: early, middle and late; a small network has only two.
        places = dict(zip(probe.blocks, BLOCKS[-len(probe.blocks) :], strict=True))
        for features, by_target in probe.read(t, bar.update).items():
            place = places.get(features.removeprefix("block "), features)
            for target, scores in by_target.items():
                truth = probe.test_labels[target]
                two_alternative = linear_probe.two_alternative(scores, truth)
                rows += self.rows(probe, t, metric_of(TWO_ALTERNATIVE, place, target), two_alternative)
                correct = linear_probe.correct(scores, truth)
                rows += self.rows(probe, t, metric_of(ACCURACY, place, target), correct)
        return rows

    def rows(self, probe: LinearProbe, t: int, metric: str, values: Tensor) -> Iterator[Row]:
        """One row for each group of test videos, or of pairs of videos: its mean."""
        model = self.job.plan.model
        settings = {
            "model": {"path": model.path, "revision": model.revision},
            "blocks": dict(zip(BLOCKS[-len(probe.blocks) :], probe.blocks, strict=True)),
        }
        videos = "pairs" if OBSERVER in metric else "test"
        for group in np.array_split(np.arange(len(values)), GROUPS):
            yield Row(
                metric=metric,
                metric_version=METRIC_VERSION,
                value=float(values[torch.from_numpy(group)].mean()),
                higher_is_better=True,
                suite="shapes",
                reference=f"{videos} {group[0] + 1:03d}-{group[-1] + 1:03d}",
                strata={"contrast": self.contrast, "t": str(t), **self.options.strata()},
                method="linear_probe",
                tau=1000.0,
                steps=0,
                settings=settings,
                **self.job.origin(),
            )


def tasks_of(job: Job, contrasts: Sequence[str], options: Options) -> list[Task]:
    """What has to be read of a model."""
    units = [(contrast, t) for contrast in contrasts for t in TIMESTEPS]
    missing = row_file(job, options).missing(
        units, lambda row: (row.strata["contrast"], int(row.strata["t"]))
    )
    return [
        Task(job, contrast, options, [t for name, t in missing if name == contrast]) for contrast in contrasts
    ]


def run(tasks: Sequence[Task]) -> None:
    """Read everything that is missing."""
    with progress_bar(sum(task.videos for task in tasks), "linear probe", "video") as bar:
        for task in tasks:
            task.run(bar)


def show(output: Path, rows: Sequence[Row]) -> None:
    """Print the accuracies at the paper's timestep; write all tables and figures."""
    print(to_markdown(linear_tables.tables(rows)[""][0]))
    linear_tables.write(output / "linear-probe", rows)
    linear_figures.write(output / "figures", rows)
    print(f"rows, tables and figures: {output}")


def settings_of(overrides: Sequence[str]) -> JobConfig:
    """The settings of a job; the default precision is fp32."""
    return load(["precision=fp32", *overrides])


def options_of(arguments: Sequence[str]) -> tuple[list[str], list[str], Options]:
    """The overrides of jobs, the contrasts, and the numbers of videos.

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
    # Four training videos of each motion, a video and a pair in each group.
    least = {"train": 4 * len(grammar.CAPTIONED), "test": GROUPS, "pairs": GROUPS, "draws": 1}
    counts = {name: getattr(parsed, name) for name in least}
    for name, count in least.items():
        if counts[name] < count:
            raise InputError(f"--{name} {counts[name]}: at least {count}")
    return parsed.overrides, list(dict.fromkeys(parsed.contrasts)), Options(**counts)


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Probe the models of the overrides, or every bundled one."""
    overrides, contrasts, options = options_of(arguments)
    settings = jobs_of(overrides, settings_of)
    jobs = [Job(cfg, Console(quiet=True)) for cfg in settings]
    tasks = [task for job in jobs for task in tasks_of(job, contrasts, options)]
    if not jobs:
        return
    if settings[0].dry_run:
        videos = sum(task.videos for task in tasks)
        seconds = sum(task.seconds() for task in tasks if task.timesteps)
        print(
            f"{videos:,} videos to encode or to read, about {duration(seconds)}; dry_run=true, nothing is run"
        )
        return
    with clear_disk_errors(settings[0].output):
        run(tasks)
        rows = [row for job in jobs for row in row_file(job, options).rows()]
        rows = [row for row in rows if row.strata["contrast"] in contrasts]
        show(folder(jobs[0]), [*rows, *(row for job in jobs for row in schedule_rows(job, steps=0))])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
