"""One process: a backbone loaded once, and its cells one after the other: fit, sample, score, append rows."""

from motionexp.jobs.external import score_external
from motionexp.jobs.job import encode
from motionexp.jobs.planning import plan
from motionexp.jobs.probing import probe
from motionexp.jobs.running import run
from motionexp.jobs.submission import write_submission

__all__ = ["encode", "plan", "probe", "run", "score_external", "write_submission"]
