"""Probes of a world in which each attribute of a sample is set at one timestep: the truth is known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from motionexp.probes.analysis.rows import APPEARANCE, ProbeValues
from motionexp.probes.analysis.tau_sweep import CHANCE, LEAKAGE, MOTION
from motionexp.probes.timesteps import EDGES, PAIRS
from motionexp.results.rows import Row

KINDS = {
    "style": ("colour", "surface"),
    "object": ("shape",),
    "background": ("background",),
    "multiple": APPEARANCE,
}
COMMON = {"metric_version": 1, "suite": "shapes", "precision": "fp32", "steps": 50}
PEAK = 640.0
"""Where `sweep_rows` has its best tau."""
SET_AT = {"motion": 800.0, "shape": 600.0, "background": 550.0, "surface": 450.0, "colour": 400.0}


@dataclass(frozen=True)
class World:
    """When attributes are set: normally distributed around each attribute's mean.

    `between` and `within` are standard deviations over references and over a reference's samples, `mistakes`
    is how often a reading is wrong.
    """

    set_at: Mapping[str, float] = field(default_factory=lambda: dict(SET_AT))
    between: float = 40.0
    within: float = 80.0
    mistakes: float = 0.03


def set_times(world: World, name: str, references: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(references, samples) timesteps at which one attribute is set."""
    means = rng.normal(world.set_at[name], world.between, (references, 1))
    return np.clip(rng.normal(means, world.within, (references, samples)), 1, 999)


def cumulative(
    world: World, name: str, references: int, samples: int, rng: np.random.Generator
) -> np.ndarray:
    """(references, 11, 11) share of samples in which each range of timesteps changes an attribute."""
    times = set_times(world, name, references, samples, rng)
    values = np.full((references, 11, 11), np.nan)
    for i, j in zip(*np.tril_indices(11), strict=True):
        hit = (times >= EDGES[j]) & (times < EDGES[i])
        values[:, i, j] = (hit ^ (rng.random(times.shape) < world.mistakes)).mean(1)
    values[:, range(11), range(11)] = values[:, :1, 0]
    return values


def made_probes(
    world: World, references: int, rng: np.random.Generator, samples: int = 2
) -> dict[str, ProbeValues]:
    """{method: probe} of both tampering probes and of partial guidance."""
    names = tuple(f"{number:02d}" for number in range(references))
    count = np.full(references, samples)

    def probe(changed: tuple[str, ...]) -> ProbeValues:
        values = {name: cumulative(world, name, references, samples, rng) for name in world.set_at}
        disturbed = values["motion"] * (1.0 if changed == ("motion",) else 0.5)
        read = {f"new_{name}": values[name] for name in changed}
        read |= {f"old_{name}": 1 - share * (name in changed) for name, share in values.items()}
        read["text_alignment"] = 30 + 6 * np.mean([values[name] for name in changed], axis=0)
        read["flow_similarity"] = 0.95 - 0.8 * disturbed
        return ProbeValues(names, read, dict.fromkeys(read, count))

    changed = {"tampering": APPEARANCE, "motion_tampering": ("motion",), "partial_guidance": APPEARANCE}
    return {method: probe(names) for method, names in changed.items()}


def probe_rows(
    world: World, references: int, model: str = "tiny_latte", contrast: str = "motion-dominant"
) -> list[Row]:
    """Rows of the three probes, and of energies that predict when each attribute is set."""
    rng = np.random.default_rng(0)
    settings = {"model": {"path": "bundled:tiny_latte"}}
    common = {**COMMON, "model": model, "weights_hash": model, "tau": 1000.0, "settings": settings}
    times = {name: set_times(world, name, references, 5, rng) for name in world.set_at}
    rows: list[Row] = []
    for number in range(references):
        for sample, (kind, changed) in enumerate([*KINDS.items(), ("motion", ("motion",))]):
            set_at = {name: float(timesteps[number, sample]) for name, timesteps in times.items()}
            fields = {
                **common, "reference": f"{number:02d}", "edit_kind": kind, "edit_caption": kind, "seed": 0,
                "strata": {"contrast": contrast},
            }  # fmt: skip
            for method in ("motion_tampering",) if kind == "motion" else ("tampering", "partial_guidance"):
                rows += _edit_rows({**fields, "method": method}, set_at, changed, world, rng)
    for name, at in world.set_at.items():
        energy = {"method": "energies", "metric": "energy", "value": 4 * float(np.exp((at - 500) / 60))}
        rows.append(Row(**common, **energy, reference="pairs", strata={"contrast": contrast, "factor": name}))
    return rows + schedule_rows(common)


def schedule_rows(common: Mapping[str, object]) -> list[Row]:
    """Rows of the schedule of a model, whose fields are `common`."""
    fields = {**common, "method": "schedule", "metric": "log_snr", "reference": "schedule"}
    return [Row(**fields, value=log_snr_of(t), strata={"t": str(t)}) for t in range(0, 1000, 10)]


def log_snr_of(t: float) -> float:
    """Of the made worlds' schedule, which is straight and ends in pure noise."""
    return (500 - t) / 60


def _edit_rows(
    of: Mapping[str, object],
    times: Mapping[str, float],
    changed: tuple[str, ...],
    world: World,
    rng: np.random.Generator,
) -> Iterator[Row]:
    control = [] if of["method"] == "partial_guidance" else [("none", "none")]
    for start, end in [*PAIRS, *control, ("reference", "reference")]:
        is_reference = start == "reference"
        low, high = (end, start) if isinstance(start, int) else (0, 0)
        hit = {name: low <= at < high for name, at in times.items()}
        wrong = dict(zip(times, (rng.random(len(times)) < world.mistakes) & (not is_reference), strict=True))
        disturbed = hit["motion"] * (1.0 if changed == ("motion",) else 0.5)
        values = {
            "text_alignment": 30 + 6 * sum(hit[name] for name in changed) / len(changed),
            "flow_similarity": 1 - 0.8 * disturbed - (0.0 if is_reference else 0.05),
        }
        for name in times:
            new = bool(hit[name] ^ wrong[name])
            values[f"new_{name}"] = float(new) if name in changed else float("nan")
            values[f"old_{name}"] = float(not new) if name in changed else float(not wrong[name])
        for metric, value in values.items():
            yield Row(**of, metric=metric, value=float(value), tau_start=str(start), tau_end=str(end))


def sweep_rows(peak: float = PEAK, references: int = 10, taus: tuple[int, ...] = EDGES) -> list[Row]:
    """Motion falls away from the peak on both sides as a parabola; leakage is chance and 0.1 everywhere."""
    rng, rows = np.random.default_rng(0), []
    common = {**COMMON, "model": "tiny_latte", "weights_hash": "tiny_latte", "steps": 25}
    for tau, number, kind in product(taus, range(references), ("style", "object")):
        motion = 0.8 - ((tau - peak) / 500) ** 2 + rng.normal(0, 0.02)
        fields = {
            **common, "reference": f"{number:02d}", "edit_kind": kind, "tau": float(tau),
            "strata": {"contrast": "motion-dominant"}, "method": "base" if tau == 1000 else "lora",
        }  # fmt: skip
        for metric, value in ((MOTION, motion), (LEAKAGE, 0.35), (CHANCE, 0.25)):
            rows.append(Row(**fields, metric=metric, value=value, score_id=f"{metric}{tau}{number}{kind}"))
    return rows
