"""The walk of a job's settings through the modules of the package."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from motionexp import files
from motionexp.config.schema import JobConfig
from motionexp.jobs.plan import JobPlan

PACKAGE = str(Path(files.__file__).parent)
WHOLE = JobConfig, JobPlan


def climbs_back(modules: list[str]) -> int:
    """How often a walk enters a module that it has left before."""
    stays = [module for number, module in enumerate(modules) if number == 0 or modules[number - 1] != module]
    left: set[str] = set()
    count = 0
    for before, module in pairwise(stays):
        left.add(before)
        count += module in left
    return count


def _holds_settings(value: Any) -> bool:
    return isinstance(value, WHOLE) or isinstance(getattr(value, "__dict__", {}).get("cfg"), WHOLE)


@contextmanager
def settings_walk() -> Iterator[Callable[[], list[str]]]:
    """Records the modules of all calls that are handed a job's whole settings or plan, each call site once.

    A call counts if one of its arguments is a JobConfig or a JobPlan, or has one as its attribute `cfg`.

    Yields:
        A function that returns the modules in the order of the calls.
    """
    modules: dict[tuple[str, int, str, int], str] = {}

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE):
            return
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(_holds_settings(frame.f_locals.get(name)) for name in arguments):
            caller = frame.f_back
            assert caller is not None
            site = caller.f_code.co_filename, caller.f_lineno, code.co_filename, code.co_firstlineno
            modules.setdefault(site, code.co_filename)

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield lambda: list(modules.values())
    finally:
        sys.setprofile(previous)
