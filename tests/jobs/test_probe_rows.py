"""Energies beside a probe: measured once for what they depend on."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from motionexp.data.shapes.energies import Energy
from motionexp.jobs import probe_rows
from motionexp.results.rows import read_rows


@pytest.fixture
def measured(monkeypatch):
    """Frames of each time that energies are measured."""
    asked: list[int] = []

    def measure(encode, frames):
        asked.append(frames)
        return [Energy("motion-dominant", factor, float(len(asked)), 1) for factor in ("shape", "motion")]

    monkeypatch.setattr(probe_rows, "energies", measure)
    return asked


@pytest.fixture
def job(make, tmp_path):
    def of(precision="fp32", weights="a" * 64, **changes):
        cfg = replace(make(), **changes)
        backbone = SimpleNamespace(weights_hash=weights)
        size = cfg.frames, cfg.model.height, cfg.model.width
        plan = SimpleNamespace(model=cfg.model, size=size, folder=lambda suite: tmp_path / suite)
        origin = {"model": cfg.model.name, "precision": precision, "weights_hash": weights}
        return SimpleNamespace(plan=plan, backbone=backbone, precision=precision, origin=lambda: origin)

    return of


def test_energies_are_measured_once_for_each_thing_that_they_depend_on(job, measured, monkeypatch, tmp_path):
    first = probe_rows.energy_rows(job())
    assert [row.value for row in probe_rows.energy_rows(job())] == [row.value for row in first] == [1.0, 1.0]
    model = job().plan.model
    others = [
        job(precision="bf16"),
        job(weights="b" * 64),
        job(frames=32),
        job(model=replace(model, height=32)),
        job(model=replace(model, width=32)),
    ]
    found = [probe_rows.energy_rows(other) for other in others]
    monkeypatch.setattr(probe_rows, "METRIC_VERSION", probe_rows.METRIC_VERSION + 1)
    found.append(probe_rows.energy_rows(job()))
    assert [[row.value for row in rows] for rows in found] == [[float(n)] * 2 for n in range(2, 8)]
    assert len(measured) == 7
    # Nor does one stand for another where rows of several cells are read together.
    assert len(read_rows(tmp_path)) == 14
    assert {(row.precision, row.settings["frames"]) for row in found[0] + found[2]} == {
        ("bf16", 4),
        ("fp32", 32),
    }
