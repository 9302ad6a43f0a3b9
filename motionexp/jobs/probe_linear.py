"""The linear probe of a model: reads motion and appearance of videos of the bundled world.

It reads them from x_t and from the backbone's blocks at t = 0, 100, ..., 999, and compares with an ideal
observer; see `probes/linear_probe.py`. `references=` counts groups of videos: intervals resample groups in
place of references.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from motionexp.config.ids import PROBE_VERSION, pair_id
from motionexp.data.base import Reference
from motionexp.data.shapes import grammar
from motionexp.data.shapes.energies import pairs
from motionexp.data.shapes.render import FPS, FRAMES, render
from motionexp.data.shapes.scenes import Scene
from motionexp.jobs.job import Job
from motionexp.jobs.plan import JobPlan, ProbePlan
from motionexp.jobs.probe_rows import schedule_rows
from motionexp.jobs.probe_units import Probe, Progress, Unit, Work
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
from motionexp.probes.block_features import motion_blocks
from motionexp.results.rows import Row, score_id_of
from motionexp.results.terminal import print_table

METRIC_VERSION = 1
TRAIN, TEST, PAIRS = 24, 10, 1
"""Of each group: training videos, test videos, and pairs of each attribute for the ideal observer."""
DRAWS = 1
"""Noises of a training video. More videos are better than more noises: both average the noise out, and only
more videos average out their other differences."""


class LinearProbe(Probe):
    """Every contrast of the bundled world is a unit of work."""

    headings = ("model, contrast", "timesteps")

    def __init__(self, plan: JobPlan) -> None:
        super().__init__(plan)
        self.units: list[LinearUnit] = [
            LinearUnit(self.job, self.plan, contrast) for contrast in grammar.CONTRASTS
        ]

    @property
    def cost(self) -> str:
        """What a unit costs, in words."""
        counts = self.units[0].counts
        return (
            f"{self.plan.groups} groups of videos: {counts['train']} to train on, {counts['test']} to test,"
            f" {counts['pairs']} pairs of each attribute; at {len(TIMESTEPS)} timesteps; for each contrast"
        )

    def model_rows(self, job: Job) -> list[Row]:
        """See `Probe.model_rows`."""
        return schedule_rows(job, steps=0)

    def show(self, job: Job, rows: Sequence[Row], model_rows: Sequence[Row]) -> None:
        """See `Probe.show`. Tables of all numbers are written beside the figures."""
        every, folder = [*rows, *model_rows], self.figures / "linear_probe"
        print_table(job.console, linear_tables.tables(every)[""][0])
        linear_figures.write(folder, every, "A job of probe=linear_probe drew these from its rows alone.")
        linear_tables.write(folder / "linear-probe", every)
        job.console.print(f"tables and figures: {folder}", markup=False, highlight=False, soft_wrap=True)


class LinearUnit(Unit):
    """The videos of one contrast.

    Attributes:
        counts: numbers of videos to `train` on and to `test`, of `pairs` and of `draws` of noise; they are
            strata of the rows.
    """

    def __init__(self, job: JobPlan, plan: ProbePlan, contrast: str) -> None:
        self.job, self.plan, self.contrast, self.name = job, plan, contrast, f"{job.model.name}, {contrast}"
        groups = plan.groups
        self.counts = {
            "train": TRAIN * groups,
            "test": TEST * groups,
            "pairs": PAIRS * groups,
            "draws": DRAWS,
        }
        # In the layout of guidance: some networks were never trained on the empty caption alone.
        self.captions = (job.references[0].caption, "")
        self.cell = plan.cell("shapes", self.captions[0], f"{contrast}, {groups} groups")

    @property
    def missing(self) -> list[int]:
        """The timesteps without rows. All rows of a timestep are appended at once, so none is half done."""
        stored = {int(row.strata["t"]) for row in self.cell.rows()}
        return [t for t in TIMESTEPS if t not in stored]

    @property
    def stored(self) -> tuple[int, int]:
        """See `Unit.stored`."""
        return len(TIMESTEPS) - len(self.missing), len(TIMESTEPS)

    @property
    def work(self) -> Work:
        """See `Unit.work`."""
        counts = self.counts
        encoded = counts["train"] + counts["test"] + 2 * counts["pairs"] * len(TARGETS)
        read = (counts["draws"] * counts["train"] + counts["test"]) * len(self.missing)
        return Work(read, read, encoded)

    def scenes(self, part: str) -> list[Scene]:
        """The scenes of `train` or `test`."""
        return linear_probe.scenes(part, self.contrast, self.counts[part])

    def pairs(self, target: str) -> Iterator[tuple[Scene, Scene]]:
        """Pairs of scenes that differ in a target alone."""
        return pairs(self.contrast, target, self.counts["pairs"])

    def references(self) -> Iterator[Reference]:
        """See `Unit.references`: all videos, each rendered when it is its turn."""
        paired = chain.from_iterable(pair for target in TARGETS for pair in self.pairs(target))
        return map(self.rendered, chain(paired, self.scenes("train"), self.scenes("test")))

    def rendered(self, scene: Scene) -> Reference:
        """The video of a scene."""
        length = self.job.size[0]
        # A 3D VAE needs 4k + 1 frames: the motion then runs once in the first 4k.
        frames = render(scene, length, period=FRAMES if length == FRAMES + 1 else None)
        return Reference("", "shapes", frames, FPS, caption="", edits=())

    @torch.no_grad()
    def run(self, job: Job, progress: Progress) -> None:
        """Read every missing timestep; its rows are stored at once."""
        probe, distances = self.prepare(job)
        for t in self.missing:
            self.cell.add_rows(self.read(job, probe, distances, t, progress))

    def prepare(self, job: Job) -> tuple[linear_probe.LinearProbe, dict[str, Tensor]]:
        """The probe, and {target: (P,) distances of pairs of videos that differ in it alone}."""
        backbone = job.backbone

        def latents(scenes: Sequence[Scene]) -> Tensor:
            return torch.stack([job.cache.latents(self.rendered(scene))[0].cpu() for scene in scenes])

        distances = {
            target: torch.stack([torch.dist(*latents(pair)) for pair in self.pairs(target)])
            for target in TARGETS
        }
        caption, _ = backbone.guidance_pair(*map(job.cache.conditioning, self.captions))
        train, test = self.scenes("train"), self.scenes("test")
        probe = linear_probe.LinearProbe(
            *(backbone, caption, motion_blocks(backbone, caption)),
            train=latents(train),
            test=latents(test),
            train_labels=linear_probe.labels(train),
            test_labels=linear_probe.labels(test),
            draws=self.counts["draws"],
        )
        return probe, distances

    def read(
        self,
        job: Job,
        probe: linear_probe.LinearProbe,
        distances: Mapping[str, Tensor],
        t: int,
        progress: Progress,
    ) -> list[Row]:
        """The rows of one timestep."""
        values: dict[str, Tensor] = {}
        for target, distance in distances.items():
            observed = linear_probe.ideal_observer(job.backbone.schedule, distance, t)
            values[metric_of(TWO_ALTERNATIVE, OBSERVER, target)] = observed
        # The blocks' names in rows are their places: early, middle and late; a small network has only two.
        places = dict(zip(probe.blocks, BLOCKS[-len(probe.blocks) :], strict=True))
        for features, by_target in probe.read(t, progress).items():
            place = places.get(features.removeprefix("block "), features)
            for target, scores in by_target.items():
                truth = probe.test_labels[target]
                two_alternative = linear_probe.two_alternative(scores, truth)
                values[metric_of(TWO_ALTERNATIVE, place, target)] = two_alternative
                values[metric_of(ACCURACY, place, target)] = linear_probe.correct(scores, truth)
        blocks = {place: name for name, place in places.items()}
        return [row for metric in values for row in self.rows(job, blocks, t, metric, values[metric])]

    def rows(self, job: Job, blocks: Mapping[str, str], t: int, metric: str, values: Tensor) -> Iterator[Row]:
        """One row for each group of test videos, or of pairs of videos: its mean."""
        model, videos = self.job.model, "pairs" if OBSERVER in metric else "test"
        for group in np.array_split(np.arange(len(values)), self.plan.groups):
            reference = f"{videos} {group[0] + 1:03d}-{group[-1] + 1:03d}"
            sample_id = pair_id(self.cell.folder.name, f"{t} {reference}")
            yield Row(
                metric=metric,
                metric_version=METRIC_VERSION,
                value=float(values[torch.from_numpy(group)].mean()),
                higher_is_better=True,
                score_id=score_id_of(sample_id, metric, METRIC_VERSION, ""),
                suite="shapes",
                reference=reference,
                strata={
                    "contrast": self.contrast,
                    "t": str(t),
                    **{n: str(c) for n, c in self.counts.items()},
                },
                adapter_id=self.cell.folder.name,
                sample_id=sample_id,
                versions={"probe": PROBE_VERSION},
                method="linear_probe",
                tau=1000.0,
                steps=0,
                settings={"model": {"path": model.path, "revision": model.revision}, "blocks": dict(blocks)},
                **job.origin(),
            )
