"""When each factor is set, predicted from energies by offsets that published probes measured. No torch.

An ideal observer tells two videos apart at the log-SNR ln(4 / energy) (`motionexp.data.shapes.energies`). A
network sets the factor later, by an *offset* in nats. The offset of a factor is the mean over probed models.
The boundary between motion and appearance has an offset too: from the midpoint of the motion's log-SNR and
that of the earliest appearance attribute, both of the ideal observer.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from motionexp.errors import InputError
from motionexp.files import PACKAGE
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.analysis.rows import APPEARANCE
from motionexp.results.intervals import Interval, percentile_interval
from motionexp.results.log_snr import log_snr_at, timestep_at
from motionexp.results.rows import Row

FACTORS = ("motion", *APPEARANCE)
EARLIEST, BOUNDARY = "appearance", "boundary"
"""The earliest appearance attribute, and the boundary between motion and appearance."""
CONTRAST = "motion-dominant"
"""Of the probes whose offsets are learnt."""
OFFSETS = PACKAGE / "bundled" / "offsets.json"
"""What the published probes of the bundled models measured; `make tables` writes it."""
METHOD, ENERGY, LOG_SNR = "prediction", "energy", "log_snr"
"""Of rows with one energy for each pair of videos, and with the log-SNR of a schedule; their metrics."""
FEWEST = 3
"""Pairs or clips that an interval needs."""
REPLICATES = 1_000


@dataclass(frozen=True)
class Onset:
    """What a probe measured: a factor, `EARLIEST` or `BOUNDARY` of a model.

    Attributes:
        ideal: log-SNR at which an ideal observer tells it, in nats.
        measured: log-SNR at which the network sets it, in nats.
    """

    model: str
    quantity: str
    ideal: float
    measured: float

    @property
    def offset(self) -> float:
        """Measured minus ideal, in nats."""
        return self.measured - self.ideal


@dataclass(frozen=True)
class Offsets:
    """The offsets of probed models. Raises InputError for fewer than two models, which have no spread."""

    onsets: Sequence[Onset]

    def __post_init__(self) -> None:
        if len(self.models) < 2:
            raise InputError(
                f"offsets of {', '.join(self.models) or 'no model'}: an interval needs two models"
            )

    @property
    def models(self) -> list[str]:
        """The probed models, sorted."""
        return sorted({onset.model for onset in self.onsets})

    def without(self, model: str) -> "Offsets":
        """The offsets of all models but one."""
        return Offsets([onset for onset in self.onsets if onset.model != model])

    def values(self, quantity: str) -> np.ndarray:
        """(M,) offsets of a quantity, one of each model, in nats."""
        return np.array([onset.offset for onset in self.onsets if onset.quantity == quantity])

    def mean(self, quantity: str) -> float:
        """The mean offset of a quantity over models, in nats."""
        return float(self.values(quantity).mean())

    def half_width(self, quantity: str) -> float:
        """Half of the 95% interval of the offset of one more model, in nats.

        It is Student's t interval of a new value. The spread between models is pooled over `FACTORS`: two or
        three models alone would say little about it.
        """
        from scipy.special import stdtrit  # only here: every command imports this module

        groups = [values for factor in FACTORS if len(values := self.values(factor)) > 1]
        freedom = sum(len(values) - 1 for values in groups)
        variance = sum(np.square(values - values.mean()).sum() for values in groups) / freedom
        # A new value deviates by its own spread and by the error of the mean.
        return float(stdtrit(freedom, 0.975) * math.sqrt(variance * (1 + 1 / len(self.values(quantity)))))


def onsets_of(analysis: Analysis) -> list[Onset]:
    """What the tampering probes of an analysis measured in motion-dominant videos."""
    onsets = []
    for model, contrast in analysis.boundaries:
        if contrast != CONTRAST:
            continue
        key, log_snr = (model, contrast), analysis.log_snr[model]
        factors = [
            Onset(model, onset.factor.name, ideal, float(nats[0]))
            for onset, nats, ideal in analysis.measured(key)
        ]
        if {onset.quantity for onset in factors} != {*FACTORS}:
            continue  # no energies, or a factor that did not detectably change
        appearance = [onset for onset in factors if onset.quantity != "motion"]
        ideal = {onset.quantity: onset.ideal for onset in factors}
        earliest = min(onset.measured for onset in appearance)
        boundary = float(log_snr_at(analysis.boundaries[key].tau[0], log_snr))
        onsets += [
            *factors,
            Onset(model, EARLIEST, min(onset.ideal for onset in appearance), earliest),
            Onset(model, BOUNDARY, midpoint(ideal), boundary),
        ]
    return [onset for onset in onsets if math.isfinite(onset.measured)]


def midpoint(ideal: Mapping[str, float]) -> float:
    """The middle between the motion and the earliest of all that is not motion, of log-SNR in nats."""
    return (ideal["motion"] + min(value for name, value in ideal.items() if name != "motion")) / 2


def as_text(onsets: Iterable[Onset]) -> str:
    """The content of `OFFSETS`."""
    rounded = [
        {**asdict(onset), "ideal": round(onset.ideal, 4), "measured": round(onset.measured, 4)}
        for onset in onsets
    ]
    return json.dumps(rounded, indent=1) + "\n"


def read_offsets() -> Offsets:
    """The offsets of the bundled models."""
    return Offsets([Onset(**entry) for entry in json.loads(OFFSETS.read_text())])


@dataclass(frozen=True)
class Energies:
    """Energies of one factor, one for each pair of videos.

    Attributes:
        values: (P,) squared distances in latents.
        videos: of each pair the names of its videos, or one name where no other pair has these videos.
    """

    values: np.ndarray
    videos: Sequence[tuple[str, ...]]

    def log_snr(self) -> np.ndarray:
        """(1 + N,) ln(4 / median): of all pairs, then of bootstrap replicates of the videos; without NaN."""
        names = sorted({name for pair in self.videos for name in pair})
        # RandomState's stream is frozen by numpy's policy.
        drawn = np.random.RandomState(0).randint(0, len(names), size=(REPLICATES, len(names)))
        counts = np.stack([(drawn == place).sum(1) for place in range(len(names))], axis=1)
        counts = np.concatenate([np.ones((1, len(names)), int), counts])
        places = {name: place for place, name in enumerate(names)}
        # (1 + N, P): a pair counts as often as both of its videos were drawn together.
        weights = np.stack(
            [np.prod([counts[:, places[name]] for name in pair], axis=0) for pair in self.videos], axis=1
        )
        weights = weights[weights.sum(1) > 0]
        return np.log(4 / weighted_medians(self.values, weights))


def weighted_medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) medians of values (P,) with weights (N, P), none of whose sums is 0."""
    order = np.argsort(values)
    ordered, total = values[order], np.cumsum(weights[:, order], axis=1)
    half = total[:, -1:] / 2
    # Between two values whose weights are equal halves, the median is their mean.
    return (ordered[(total >= half).argmax(1)] + ordered[(total > half).argmax(1)]) / 2


def read_energies(rows: Iterable[Row]) -> dict[str, dict[str, Energies]]:
    """{model: {factor: energies}} of rows with one energy for each pair of videos.

    Raises:
        InputError: fewer than `FEWEST` videos.
    """
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.method == METHOD and row.metric == ENERGY:
            grouped[row.model, row.stratum("factor")].append(row)
    energies: dict[str, dict[str, Energies]] = defaultdict(dict)
    for (model, factor), chosen in sorted(grouped.items()):
        videos = [tuple(filter(None, (row.reference, row.stratum("second")))) for row in chosen]
        if len({name for pair in videos for name in pair}) < FEWEST:
            raise InputError(
                f"energies of {factor} on {model}: {len(chosen)} pairs; an interval needs {FEWEST}"
            )
        energies[model][factor] = Energies(np.array([row.value for row in chosen]), videos)
    return dict(energies)


def read_schedules(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """{model: (1001,) log-SNR at t = 0, 1, ... 1000} of rows of predictions; infinite beyond them."""
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row.method == METHOD and row.metric == LOG_SNR:
            values[row.model][int(row.stratum("t"))] = row.value
    tables = {}
    for model, by_t in values.items():
        t, log_snr = zip(*sorted(by_t.items()), strict=True)
        tables[model] = np.interp(np.arange(1001), t, log_snr, left=np.inf, right=-np.inf)
    return tables


@dataclass(frozen=True)
class Prediction:
    """When a factor or the boundary is set, as predicted.

    Attributes:
        quantity: one of `FACTORS`, `EARLIEST` or `BOUNDARY`.
        energy: median over pairs; None of the boundary.
        ideal: log-SNR of the ideal observer, in nats, with the interval over pairs.
        log_snr: log-SNR at which the network sets it, in nats, with the interval of a new model.
        t: the timestep of it.
    """

    quantity: str
    energy: Interval | None
    ideal: Interval
    log_snr: Interval
    t: Interval


def predict(energies: Mapping[str, Energies], log_snr: np.ndarray, offsets: Offsets) -> list[Prediction]:
    """When each factor is set, then the boundary, from energies, a schedule and the offsets of other models.

    Args:
        energies: of the motion and of appearance, {factor: energies}.
        log_snr: (1001,) of the schedule at t = 0, 1, ... 1000.
        offsets: of the models that are learnt from.
    """
    replicates = {factor: values.log_snr() for factor, values in energies.items()}
    predictions = []
    for factor in sorted(energies, key=_place):
        ideal = _interval(replicates[factor], energies[factor])
        energy = mapped(ideal, lambda value: 4 / math.exp(value))
        predictions.append(_prediction(factor, energy, ideal, log_snr, offsets))
    # Replicates of different factors are independent, and some may have fewer.
    count = min(map(len, replicates.values()))
    middle = np.array(
        [midpoint({name: values[place] for name, values in replicates.items()}) for place in range(count)]
    )
    ideal = _interval(middle, energies["motion"])
    return [*predictions, _prediction(BOUNDARY, None, ideal, log_snr, offsets)]


def motion_is_first(predictions: Sequence[Prediction]) -> bool:
    """Whether the motion is predicted to be set before all appearance; else there is no boundary."""
    log_snr = {entry.quantity: entry.log_snr.mean for entry in predictions if entry.quantity != BOUNDARY}
    return all(log_snr["motion"] < value for name, value in log_snr.items() if name != "motion")


def _place(factor: str) -> int:
    return FACTORS.index(factor) if factor in FACTORS else len(FACTORS)


def _interval(replicates: np.ndarray, energies: Energies) -> Interval:
    low, high = percentile_interval(replicates[1:])
    videos = len({name for pair in energies.videos for name in pair})
    return Interval(float(replicates[0]), low, high, len(energies.values), videos)


def _prediction(
    quantity: str, energy: Interval | None, ideal: Interval, log_snr: np.ndarray, offsets: Offsets
) -> Prediction:
    value, half = ideal.mean + offsets.mean(quantity), offsets.half_width(quantity)
    # The errors of offset and energy are independent: their squares add up.
    low = value - math.hypot(half, ideal.mean - ideal.low)
    high = value + math.hypot(half, ideal.high - ideal.mean)
    nats = Interval(value, low, high, ideal.n, ideal.clusters)
    return Prediction(quantity, energy, ideal, nats, in_timesteps(nats, log_snr))


def mapped(interval: Interval, falling: Callable[[float], float]) -> Interval:
    """An interval through a falling function, which exchanges the ends."""
    value, low, high = (falling(end) for end in (interval.mean, interval.high, interval.low))
    return Interval(value, low, high, interval.n, interval.clusters)


def in_timesteps(nats: Interval, log_snr: np.ndarray) -> Interval:
    """The timesteps of a log-SNR, by a table (1001,): a higher log-SNR is a smaller t."""
    return mapped(nats, lambda value: float(timestep_at(value, log_snr)))
