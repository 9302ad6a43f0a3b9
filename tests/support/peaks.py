"""How much memory a call takes on the CPU."""

from collections.abc import Callable
from typing import Any

import torch


def measured_peak(work: Callable[[], Any]) -> int:
    """The most bytes that `work` holds at a time, by torch's own profiler."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
