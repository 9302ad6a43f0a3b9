"""What the papers' tables cost: the table in the manual is that of the script, and its sums are right."""

import pytest

from motionexp.config.compose import load
from motionexp.jobs.stated_costs import PEAKS, SHARE, StepFlops
from motionexp.scripts import paper_costs
from motionexp.scripts.paper_costs import (
    A100,
    BEGIN,
    DESIGNS,
    END,
    H200,
    PAGE,
    gpu_hours,
    laptop_hours,
    lines,
    measured,
)

# What `planned` counts, which takes seconds.
FLOPS = {
    "latte": StepFlops(69854902124544.0, 34399024349184.0),
    "modelscope": StepFlops(9817978470400.0, 4887105142784.0),
    "cogvideox_2b": StepFlops(70001263935488.0, 29735659962368.0),
}


@pytest.fixture(autouse=True)
def _known_flops(monkeypatch):
    cfg = load(["tau=700"])
    cfg.train_steps, cfg.steps, cfg.batch_size, cfg.guidance_scale = 200, 50, 1, 9.0
    monkeypatch.setattr(paper_costs, "planned", lambda model: (cfg, FLOPS[model]))


def test_the_manual_has_the_scripts_lines():
    page = PAGE.read_text()
    assert page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip() == lines()


def test_hours_of_a_gpu_are_steps_times_flop_over_its_speed():
    # Table 5: 4 x 76 adapters of 200 steps, 16 samples of each, 50 steps of two branches.
    flop = 4 * 76 * (200 * FLOPS["latte"].training + 16 * 100 * FLOPS["latte"].forward)
    assert gpu_hours(DESIGNS[3], H200) == pytest.approx(flop / (989e12 * SHARE) / 3600)
    assert gpu_hours(DESIGNS[3], A100) * PEAKS[A100] == pytest.approx(
        gpu_hours(DESIGNS[3], H200) * PEAKS[H200]
    )


def test_the_stated_speed_is_that_of_the_first_paper():
    assert 200 * FLOPS["latte"].training / (154.8e12 * SHARE) == pytest.approx(7 * 60, rel=0.03)


def test_hours_of_a_laptop_are_those_of_measured_cells():
    # Table 1: of three models 4 x 76 adapters, and the base model's 76 cells, with 16 samples of each.
    steps = {"tiny_latte": 100, "tiny_unet3d": 300, "tiny_cogvideox": 100}
    seconds = sum(4 * 76 * steps[name] * 0.1 + 5 * 76 * 4 * 2.0 for name in steps)
    assert laptop_hours(DESIGNS[1], lambda _: (0.1, 2.0)) == pytest.approx(seconds / 2 / 3600)
    assert measured("tiny_latte") == pytest.approx((0.0447, 6.93), rel=0.01)
