"""One process: a backbone loaded once, and its cells one after the other: fit, sample, score, append rows."""

from motionexp.jobs.planning import plan
from motionexp.jobs.probing import probe
from motionexp.jobs.running import encode, run

__all__ = ["encode", "plan", "probe", "run"]
