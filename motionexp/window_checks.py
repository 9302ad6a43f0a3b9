"""What can be wrong with the settings of a window, as far as it shows without a model. Imports no torch."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

SAMPLING_WINDOW = ("sampling_tau", "sampling_tau_high")


class WindowSettings(Protocol):
    """The part of a job's settings that says when a method is trained and applied; see `JobConfig`."""

    tau: Any
    tau_high: float
    soft_window: Any
    sampling_tau: float | None
    sampling_tau_high: float | None
    adapter: str | None


def window_problems(cfg: WindowSettings) -> Iterator[str]:
    """One sentence for each thing that is wrong; whether tau is a timestep at all is looked at elsewhere."""
    apart = [name for name in (*SAMPLING_WINDOW, "soft_window") if getattr(cfg, name) is not None]
    if apart and cfg.adapter is not None:
        yield f"{apart[0]}= goes with training; with adapter=, tau= and tau_high= say where it acts"
    elif apart and cfg.tau == 1000:
        yield f"{apart[0]}= goes with training; at tau=1000 nothing is trained"
    elif isinstance(cfg.tau, float):
        yield from _empty_windows(cfg, cfg.tau)
        if cfg.soft_window is not None and not _is_soft(cfg.soft_window, cfg.tau, cfg.tau_high):
            yield (
                f"soft_window={cfg.soft_window}: pairs of timestep and weight, as in [[400,0],[1000,1]];"
                f" timesteps ascend from tau={cfg.tau:g} to tau_high={cfg.tau_high:g} at most, weights are"
                " from 0 to 1 and not all 0"
            )


def _empty_windows(cfg: WindowSettings, tau: float) -> Iterator[str]:
    if cfg.tau_high < tau < 1000:
        yield f"tau_high={cfg.tau_high:g}: below tau={tau:g}, so that nothing is in the window"
    given = [name for name in SAMPLING_WINDOW if getattr(cfg, name) is not None]
    low = tau if cfg.sampling_tau is None else cfg.sampling_tau
    high = cfg.tau_high if cfg.sampling_tau_high is None else cfg.sampling_tau_high
    if given and high < low:
        yield f"{given[0]}={getattr(cfg, given[0]):g}: nothing is in [{low:g}, {high:g}], where it is applied"


def _is_soft(knots: Any, low: float, high: float) -> bool:
    pairs = isinstance(knots, list) and all(isinstance(knot, list) and len(knot) == 2 for knot in knots)
    if not (knots and pairs and all(isinstance(number, float) for knot in knots for number in knot)):
        return False
    times, weights = zip(*knots, strict=True)
    ascending = all(before < after for before, after in pairwise(times))
    return bool(ascending and times[0] == low and times[-1] <= high and _are_weights(weights))


def _are_weights(weights: Sequence[float]) -> bool:
    return min(weights) >= 0 and 0 < max(weights) <= 1
