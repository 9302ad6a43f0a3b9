"""What cells cost, by the seconds that finished cells of the same model took. Imports no torch."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from motionexp.config.sampling import evaluations_of_step
from motionexp.config.schema import JobConfig, guides, training_seeds, trains
from motionexp.data.base import References
from motionexp.data.select import make_reader
from motionexp.jobs.tasks import Piece, SweepJob
from motionexp.results.rows import Row

BACKWARD = 3.0
"""Cost of a training step over that of the network's forward pass: the backward pass takes twice as long."""

LEAST_STEPS = 50
"""Of a reference: `diffusion.inversion.LEAST_STEPS`, which needs torch."""


@dataclass(frozen=True)
class Rates:
    """Seconds of a model, medians over finished cells.

    Attributes:
        training: of a noise draw in a training step.
        sampling: of an evaluation of the network in the sampling of one video.
        scoring: of all scores of a video.
        is_measured: whether these are seconds; else they are in units of the network's forward pass.
    """

    training: float = BACKWARD
    sampling: float = 1.0
    scoring: float = 0.0
    is_measured: bool = False

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Rates":
        """The rates by the rows of a model's samples."""
        training, sampling = dict[str, float](), dict[str, float]()
        scoring: dict[str, float] = defaultdict(float)
        for row in rows:
            settings, seconds = row.settings, row.seconds
            if not row.sample_id or not row.steps:
                continue
            evaluations = evaluations_of_step(settings.get("guidance_scale", 1), settings.get("stg_scale", 0))
            if seconds.get("sample"):
                sampling[row.sample_id] = seconds["sample"] / (row.steps * evaluations)
            if seconds.get("fit") and row.train_steps:
                draws = row.train_steps * settings.get("batch_size", 1)
                training[row.adapter_id] = seconds["fit"] / draws
            scoring[row.sample_id] += seconds.get("score", 0.0)
        if not sampling:
            return cls()
        of_sampling = statistics.median(sampling.values())
        of_training = statistics.median(training.values()) if training else BACKWARD * of_sampling
        return cls(of_training, of_sampling, statistics.median(scoring.values()), True)


def costs_of(jobs: Sequence[SweepJob], rates: Callable[[JobConfig], Rates]) -> Callable[[Piece], float]:
    """The cost of a piece, in seconds where the rates of its model are."""
    of_cell: dict[tuple[int, str], float] = {}
    readers: dict[str, References] = {}  # one of each suite: a reader may look at all files of a benchmark

    def cost(piece: Piece) -> float:
        cfg = jobs[piece.job].cfg
        suite = repr(cfg.data)
        if suite not in readers:
            readers[suite] = make_reader(cfg.data)
        for name in piece.references:
            if (piece.job, name) not in of_cell:
                of_one = cell_cost(cfg, name, rates(cfg), readers[suite])
                of_cell[piece.job, name] = of_one * len(training_seeds(cfg))
        return sum(of_cell[piece.job, name] for name in piece.references)

    return cost


def cell_cost(cfg: JobConfig, reference: str, rates: Rates, reader: References) -> float:
    """The cost of one cell; the base model's, which jobs share, is not counted."""
    samples = _edits(cfg, reference, reader) * cfg.seeds
    if cfg.probe is not None:
        return samples * cfg.probe_steps * evaluations_of_step(cfg.guidance_scale) * rates.sampling
    training = cfg.train_steps * cfg.batch_size * rates.training if trains(cfg) else 0.0
    inversion = max(cfg.steps, LEAST_STEPS) if cfg.inverted_noise and cfg.tau != 1000 else 0
    of_step = evaluations_of_step(cfg.guidance_scale, cfg.stg_scale)
    evaluations = cfg.steps * (of_step + _guidance_cost(cfg))
    return training + inversion * rates.sampling + samples * (evaluations * rates.sampling + rates.scoring)


def _guidance_cost(cfg: JobConfig) -> float:
    """Forward passes of the network that guidance adds to a sampling step, averaged over all steps."""
    if not guides(cfg):
        return 0.0
    share = (min(cfg.tau_high, 1000.0) - float(cfg.tau)) / 1000
    return share * (1 + BACKWARD * cfg.method.get("optimization_steps", 0))


def _edits(cfg: JobConfig, reference: str, reader: References) -> int:
    """The number of a reference's edits that a job takes."""
    if cfg.edits is not None:
        return len(cfg.edits)
    if cfg.video is not None or cfg.probe == "linear_probe":
        return 1
    kinds = [edit.kind for edit in reader.describe(reference).edits]
    return max(1, sum(cfg.edit_kinds is None or kind in cfg.edit_kinds for kind in kinds))
