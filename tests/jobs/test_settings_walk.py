"""A job's settings are resolved in one pass, so that a reader need not climb back."""

from collections.abc import Callable

from motionexp.config.schema import JobConfig
from motionexp.jobs.run import run
from tests.support.settings_walk import climbs_back, settings_walk


def test_a_climb_back_is_a_return_to_a_module_that_was_left() -> None:
    assert climbs_back([]) == climbs_back(["a", "a", "b", "c"]) == 0
    assert climbs_back(["a", "b", "a", "a", "c", "b"]) == 2


def test_the_settings_of_a_job_seldom_climb_back(make: Callable[..., JobConfig]) -> None:
    cfg = make(references=1)
    with settings_walk() as walk:
        run(cfg)
    modules = walk()
    assert len(set(modules)) > 3
    # They climbed back 28 times before they were resolved into a plan.
    assert climbs_back(modules) <= 14, modules
