"""What the steps of a sweep's models cost: in one unit for all, whatever is known of some."""

import pytest

from motionexp.config.compose import load
from motionexp.config.launcher import JoblibLauncher
from motionexp.errors import InputError
from motionexp.jobs import model_rates
from motionexp.jobs.costs import Costs, Rates
from motionexp.jobs.model_rates import ModelRates, by_arithmetic
from motionexp.jobs.tasks import SweepJob, cut, pieces_of

MODELS = ("tiny_latte", "tiny_unet3d")


@pytest.fixture
def jobs(tmp_path):
    return [
        load([f"model={name}", f"output={tmp_path}", "references=12", "train_steps=100"]) for name in MODELS
    ]


def counted(cfg):
    """As if a step of tiny_unet3d had three times the arithmetic of one of tiny_latte."""
    return Rates(6.0, 2.0) if cfg.model.name == "tiny_latte" else Rates(18.0, 6.0)


def refused(cfg):
    raise InputError("no configuration of latte is here")


def sizes(jobs, rates, tasks):
    """{model: how many tasks it has} of a sweep that is cut into so many."""
    singles = [SweepJob(cfg, ()) for cfg in jobs]
    pieces = [piece for number, cfg in enumerate(jobs) for piece in pieces_of(number, cfg)]
    of_all = cut(singles, pieces, Costs(singles, rates.of).of_piece, lambda total: tasks)
    return [sum(task[0].job == number for task in of_all) for number in range(len(jobs))]


def test_a_model_whose_steps_are_dear_has_more_tasks(jobs, monkeypatch):
    monkeypatch.setattr(model_rates, "by_arithmetic", counted)
    rates = ModelRates(jobs, JoblibLauncher())
    assert "arithmetic" in rates.source
    assert not rates.are_measured
    assert sizes(jobs, rates, 8) == [2, 6]


def test_seconds_of_one_model_are_not_compared_with_steps_of_another(jobs, monkeypatch):
    seconds = Rates(0.05, 0.01, 0.1, is_measured=True)
    monkeypatch.setattr(model_rates, "by_arithmetic", counted)
    monkeypatch.setattr(
        model_rates,
        "of_finished_cells",
        lambda cfg: seconds if cfg.model.name == "tiny_latte" else Rates(),
    )
    rates = ModelRates(jobs, JoblibLauncher())
    assert [rates.of(cfg) for cfg in jobs] == [counted(cfg) for cfg in jobs]
    # Where hours are given, a step of the other one is measured.
    monkeypatch.setattr(model_rates, "measured_now", lambda cfg: Rates(0.2, 0.04, 0.1, is_measured=True))
    rates = ModelRates(jobs, JoblibLauncher(hours=1.0))
    assert [rates.of(cfg).sampling for cfg in jobs] == [0.01, 0.04]
    assert rates.are_measured


def test_one_model_alone_needs_no_seconds(jobs, monkeypatch):
    monkeypatch.setattr(model_rates, "by_arithmetic", refused)
    rates = ModelRates(jobs[:1], JoblibLauncher())
    assert (rates.of(jobs[0]), rates.source) == (Rates(), "")


def test_it_is_said_when_a_model_s_steps_cannot_be_counted(jobs, monkeypatch):
    monkeypatch.setattr(model_rates, "by_arithmetic", refused)
    rates = ModelRates(jobs, JoblibLauncher())
    assert "alike (no configuration of latte is here)" in rates.source
    assert [rates.of(cfg) for cfg in jobs] == [Rates(), Rates()]


def test_the_arithmetic_of_two_models_has_one_unit(jobs):
    """The networks' FLOP, as torch counts them: 2.1 and 5.5 thousand millions a forward pass."""
    latte, unet = map(by_arithmetic, jobs)
    assert unet.sampling / latte.sampling == pytest.approx(5.48 / 2.09, rel=0.02)
    assert unet.training / latte.training == pytest.approx(11.0 / 3.81, rel=0.02)
    assert latte.training / latte.sampling == pytest.approx(3.81 / 2.09, rel=0.02)
