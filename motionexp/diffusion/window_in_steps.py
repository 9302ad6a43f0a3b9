"""A window in the units of other tools: the weight in each sampling step, and shares of the schedule."""

import math
from collections.abc import Collection, Mapping, Sequence

from motionexp.diffusion.flow_matching import FlowSchedule, Schedule
from motionexp.diffusion.schedule import TIMESTEPS, Window

DIGITS = 3  # of a share in ComfyUI's nodes
MARGIN = 1e-6


def reached(spans: Mapping[str, Window], window: Window) -> list[str]:
    """The networks of `Backbone.spans` that act in a window."""
    return [name for name, span in spans.items() if span.low <= window.high and window.low <= span.high]


def span_of(spans: Mapping[str, Window], networks: Collection[str]) -> Window:
    """The timesteps at which some of the networks of `Backbone.spans` act; all where it is empty."""
    chosen = [span for name, span in spans.items() if name in networks]
    if not chosen:
        return Window(0)
    return Window(min(span.low for span in chosen), max(span.high for span in chosen))


def step_weights(window: Window, timesteps: Sequence[float]) -> list[float]:
    """The window's weight in each sampling step, by the timestep at which it starts."""
    return [window.weight(t) for t in timesteps]


def share(t: float, schedule: Schedule) -> float:
    """The share of ComfyUI's schedule, 0 (noise) to 1, where t is reached: its `percent_to_sigma` inverted.

    For flow matching 1 - sigma / (s - (s - 1) sigma) with sigma = t / 1000 and the shift s, for discrete
    schedules 1 - t / 999.
    """
    if isinstance(schedule, FlowSchedule):
        sigma = t / TIMESTEPS
        return 1 - sigma / (schedule.shift - (schedule.shift - 1) * sigma)
    return min(1.0, max(0.0, 1 - t / (TIMESTEPS - 1)))


def keyframes(window: Window, schedule: Schedule, timesteps: Sequence[float]) -> list[tuple[float, float]]:
    """(share, weight) from which on the weight holds, ascending from share 0, for steps at these timesteps.

    A keyframe acts in the steps at or after its share. It lies between two steps, and at the window's end if
    that does too, so that it also suits other numbers of steps.
    """
    weights = step_weights(window, timesteps)
    frames = [(0.0, weights[0])]
    for before, after, t, following in zip(weights, weights[1:], timesteps, timesteps[1:], strict=False):
        if after != before:
            # Between the steps of a soft window there is no bound.
            bound = following if window.knots else window.low if after == 0 else window.high
            frames.append((_between(*(share(at, schedule) for at in (t, following, bound))), after))
    return frames


def _between(before: float, following: float, bound: float) -> float:
    """A short decimal number between two shares, the first one at or above `bound` if that lies there."""
    middle = (before + following) / 2
    for digits in range(DIGITS, 12):
        for number in (math.ceil(bound * 10**digits) / 10**digits, round(middle, digits)):
            # ComfyUI computes with fp32.
            if before + MARGIN < number < following - MARGIN:
                return number
    return middle


def equal_parts(weights: Sequence[float]) -> str:
    """Weights as Wan2GP takes them: one for each of so many equal parts of the steps."""
    return ",".join(f"{weight:g}" for weight in weights)
