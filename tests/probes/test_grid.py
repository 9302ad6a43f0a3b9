"""Which numbers of steps a probe's grid divides, told before weights are loaded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from motionexp.config.compose import load
from motionexp.config.schema import ANY_SCHEDULES_STEPS
from motionexp.diffusion.schedule import SPACINGS, NoiseSchedule
from motionexp.errors import InputError
from motionexp.jobs.checks import check_grid
from motionexp.probes.tree import step_blocks


@pytest.fixture
def probe(base):
    return load([*base, "probe=tampering"])


def set_scheduler(cfg, **config):
    path = Path(cfg.model.path, "scheduler", "scheduler_config.json")
    path.write_text(json.dumps({"beta_schedule": "linear", **config}))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("offset", [0, 1])
def test_some_numbers_of_steps_do_on_every_schedule(spacing, offset):
    spaced = {"timestep_spacing": spacing, "steps_offset": offset}
    schedule = NoiseSchedule.from_config({"beta_schedule": "linear", **spaced})
    for steps in ANY_SCHEDULES_STEPS:
        assert [len(block) for block in step_blocks(schedule, steps)] == [steps // 10] * 10


def test_the_numbers_of_steps_that_would_do_are_the_nearest_ones(probe):
    for steps, would_do in ((30, "10, 20, 40, 50, 100, 200"), (700, "50, 100, 200, 250, 500, 1000")):
        with pytest.raises(InputError, match=f"probe_steps={steps}: .*; {would_do} "):
            check_grid(replace(probe, probe_steps=steps))
    # At an offset of 1 the first of 1,000 steps would start at t = 1000.
    set_scheduler(probe, steps_offset=1)
    with pytest.raises(InputError, match="; 40, 50, 100, 200, 250, 500 "):
        check_grid(replace(probe, probe_steps=700))


def test_it_is_the_models_own_schedule_that_decides(probe):
    set_scheduler(probe, timestep_spacing="trailing")
    check_grid(replace(probe, probe_steps=30))


def test_a_hubs_model_that_is_not_here_is_not_asked_for(probe, monkeypatch):
    def offline(*arguments, **settings):
        assert settings["local_files_only"]
        raise OSError("not in the cache")

    monkeypatch.setattr("motionexp.hub.snapshot_download", offline)
    check_grid(replace(probe, probe_steps=30, model=replace(probe.model, path="somebody/something")))


def test_a_folder_without_a_scheduler_is_named(probe):
    with pytest.raises(InputError, match=r"scheduler_config\.json"):
        check_grid(replace(probe, model=replace(probe.model, path="/")))
