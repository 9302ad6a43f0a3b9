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


class Costs:
    """What the cells of a sweep cost, in seconds where the rates of their model are.

    Args:
        jobs: of the sweep.
        rates: of a job's model.
    """

    def __init__(self, jobs: Sequence[SweepJob], rates: Callable[[JobConfig], Rates]) -> None:
        self._jobs, self._rates = jobs, rates
        self._readers: dict[str, References] = {}  # a reader may look at all files of a benchmark
        self._of_piece: dict[Piece, float] = {}

    def of_cell(self, cfg: JobConfig, reference: str) -> float:
        """The cost of one cell of a job."""
        suite = repr(cfg.data)
        if suite not in self._readers:
            self._readers[suite] = make_reader(cfg.data)
        return cell_cost(cfg, reference, self._rates(cfg), self._readers[suite])

    def of_piece(self, piece: Piece) -> float:
        """The cost of a piece; the base model's cells, which jobs share, are not counted."""
        if piece not in self._of_piece:
            cfg = self._jobs[piece.job].cfg
            of_cells = sum(self.of_cell(cfg, name) for name in piece.references)
            self._of_piece[piece] = of_cells * len(training_seeds(cfg))
        return self._of_piece[piece]

    def seconds(self, cfg: JobConfig, reference: str) -> float | None:
        """The seconds of one cell of a job; None where the model's rates are none in seconds."""
        return self.of_cell(cfg, reference) if self._rates(cfg).is_measured else None


def cell_cost(cfg: JobConfig, reference: str, rates: Rates, reader: References) -> float:
    """The cost of one cell."""
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
