import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from motionexp.errors import InputError
from motionexp.probes.analysis.prediction import (
    BOUNDARY,
    FACTORS,
    METHOD,
    OFFSETS,
    Energies,
    Offsets,
    Onset,
    midpoint,
    motion_is_first,
    predict,
    read_energies,
    read_offsets,
    read_schedules,
    weighted_medians,
)
from motionexp.probes.analysis.prediction_tables import (
    changed,
    leave_one_out_table,
    prediction_table,
    slope_and_offset,
)
from motionexp.probes.clip_energies import clip_energies, split_energy
from motionexp.results.formats import to_markdown
from motionexp.results.intervals import Interval
from motionexp.results.published import read_published
from motionexp.results.rows import Row

LOG_SNR = 10 - 0.02 * np.arange(1001.0)
"""A straight schedule: t = 50 (10 - log-SNR)."""
IDEAL = {"motion": -8.0, "colour": -5.0, "shape": -7.0, "surface": -5.5, "background": -6.5}
OFFSET = {"motion": 3.0, "colour": 6.0, "shape": 6.0, "surface": 5.0, "background": 6.5, BOUNDARY: 4.5}


def onsets(model: str, shift: float = 0.0, more: float = 0.0) -> list[Onset]:
    """A model's onsets at the known offsets, with ideal log-SNR moved by `shift` and offsets by `more`."""
    ideal = {factor: value + shift for factor, value in IDEAL.items()}
    ideal[BOUNDARY] = midpoint(ideal)
    return [Onset(model, name, ideal[name], ideal[name] + OFFSET[name] + more) for name in ideal]


def exact_energies(shift: float = 0.0) -> dict[str, Energies]:
    """Energies without any spread that have the ideal log-SNR."""
    names = [(f"{number}",) for number in range(4)]
    return {name: Energies(np.full(4, 4 / math.exp(value + shift)), names) for name, value in IDEAL.items()}


def energy_row(factor: str, value: float, first: str, second: str = "", model: str = "one") -> Row:
    """A row of a prediction."""
    strata = {"factor": factor} | ({"second": second} if second else {})
    return Row(
        metric="energy", metric_version=1, value=value, suite="shapes", reference=first, strata=strata,
        model=model, method=METHOD, tau=1000.0, steps=0,
    )  # fmt: skip


def test_a_model_is_predicted_exactly_from_models_of_one_offset():
    offsets = Offsets([*onsets("one"), *onsets("two", -1.0), *onsets("three", 2.0)])
    predictions = predict(exact_energies(2.0), LOG_SNR, offsets.without("three"))
    assert [entry.quantity for entry in predictions] == [*FACTORS, BOUNDARY]
    for entry in predictions:
        ideal = midpoint(IDEAL) if entry.quantity == BOUNDARY else IDEAL[entry.quantity]
        expected = ideal + 2 + OFFSET[entry.quantity]
        nats = entry.log_snr
        assert (nats.mean, nats.low, nats.high) == pytest.approx((expected,) * 3)
        assert entry.t.mean == pytest.approx(50 * (10 - expected), abs=1e-6)
    assert motion_is_first(predictions)


def test_the_interval_of_a_model_is_students_of_a_new_value_and_its_ends_change_places_in_t():
    more = np.array([-0.4, 0.1, 0.9])
    offsets = Offsets([onset for n, value in enumerate(more) for onset in onsets(f"{n}", more=value)])
    # Every factor has the same three deviations: their variance is pooled, with 5 x 2 degrees of freedom.
    expected = stats.t.ppf(0.975, 10) * more.std(ddof=1) * math.sqrt(1 + 1 / 3)
    assert offsets.half_width("colour") == pytest.approx(expected)
    motion = predict(exact_energies(), LOG_SNR, offsets)[0]
    assert motion.log_snr.high - motion.log_snr.mean == pytest.approx(expected)
    assert motion.t.low == pytest.approx(50 * (10 - motion.log_snr.high), abs=1e-6)
    assert motion.t.high == pytest.approx(50 * (10 - motion.log_snr.low), abs=1e-6)


def test_the_spread_of_energies_widens_the_interval():
    offsets = Offsets([*onsets("one"), *onsets("two")])
    rng = np.random.default_rng(0)
    values = 4 / np.exp(IDEAL["motion"] + rng.normal(0, 1, 400))
    energies = exact_energies() | {"motion": Energies(values, [(f"{n}",) for n in range(400)])}
    motion = predict(energies, LOG_SNR, offsets)[0]
    # The median of n normal values has the standard error sqrt(pi / 2n).
    width = 2 * 1.96 * math.sqrt(math.pi / 800)
    assert motion.ideal.mean == pytest.approx(math.log(4 / np.median(values)))
    assert motion.ideal.high - motion.ideal.low == pytest.approx(width, rel=0.25)
    assert motion.log_snr.high - motion.log_snr.low == pytest.approx(motion.ideal.high - motion.ideal.low)


def test_weights_count_how_often_a_value_is_there():
    rng = np.random.default_rng(1)
    values, counts = rng.normal(size=9), rng.integers(0, 4, (20, 9)) + np.eye(20, 9, dtype=int)
    counts[:, 0] += counts.sum(1) == 0
    expected = [np.median(np.repeat(values, row)) for row in counts]
    assert weighted_medians(values, counts.astype(float)) == pytest.approx(expected)


def test_one_model_has_no_spread():
    with pytest.raises(InputError, match="two models"):
        Offsets([*onsets("one"), *onsets("two")]).without("two")


def test_no_boundary_is_predicted_where_appearance_is_set_first():
    offsets = Offsets([*onsets("one"), *onsets("two")])
    energies = exact_energies() | {"background": Energies(np.full(4, 4 * math.exp(20)), [("a",), ("b",)] * 2)}
    predictions = predict(energies, LOG_SNR, offsets)
    assert not motion_is_first(predictions)
    shown = to_markdown(prediction_table("title", predictions, offsets, "pairs"))
    (line,) = [line for line in shown.splitlines() if line.startswith("| boundary")]
    assert line.count("\N{EN DASH}") == 3


def test_the_published_table_compares_each_model_with_the_others():
    offsets = Offsets([*onsets("one"), *onsets("two"), *onsets("three", more=0.6)])
    energies = {name: exact_energies() for name in offsets.models}
    table = leave_one_out_table(energies, dict.fromkeys(offsets.models, LOG_SNR), offsets)
    by_model = {block.title.split(",")[0]: block for block in table.blocks}
    assert [*by_model] == ["one", "three", "two"]
    errors = {model: block.lines[-1].cells[-1].interval.mean for model, block in by_model.items()}
    # 0.6 nats are 30 timesteps; the mean offset of the others is 0.3 nats too high for "one".
    assert errors == pytest.approx({"one": -15, "two": -15, "three": 30}, abs=1e-6)
    # All have one ideal log-SNR and one schedule: to copy t or log-SNR is the same prediction.
    assert "errs by 20 in t" in table.notes[0]
    assert "by 20 in t, or by 20 if" in table.notes[0]


def test_rows_of_pairs_and_schedules_are_read():
    rows = [energy_row("motion", value, f"{value}") for value in (1.0, 2.0, 4.0)]
    rows += [energy_row("appearance", 3.0, *pair) for pair in (("a", "b"), ("a", "c"), ("b", "c"))]
    energies = read_energies(rows)["one"]
    assert energies["motion"].log_snr()[0] == pytest.approx(math.log(2))
    assert energies["appearance"].videos == [("a", "b"), ("a", "c"), ("b", "c")]
    with pytest.raises(InputError, match="motion on one"):
        read_energies(rows[:2])
    about = {"metric": "log_snr", "strata": {"t": "10"}, "value": 3.0}
    table = read_schedules([replace(rows[0], **about)])["one"]
    assert (table[9], table[10], table[11]) == (np.inf, 3.0, -np.inf)


def test_bundled_offsets_are_those_of_three_models():
    offsets = read_offsets()
    assert offsets.models == ["tiny_cogvideox", "tiny_latte", "tiny_unet3d"]
    assert OFFSETS.is_file()
    assert offsets.mean("motion") < min(offsets.mean(name) for name in FACTORS if name != "motion")


def test_energies_of_a_pair_of_clips_add_up_to_their_distance():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 3, 8, 4, 4)).astype(np.float32)
    motion, appearance = split_energy(first, second)
    assert motion + appearance == pytest.approx(np.square(first - second).sum(), rel=1e-5)


def test_a_constant_difference_is_appearance_and_a_wave_is_motion():
    still = np.zeros((2, 8, 3, 3))
    wave = np.broadcast_to(np.sin(2 * np.pi * np.arange(8) / 8)[None, :, None, None], still.shape)
    assert split_energy(still, still + 0.5) == pytest.approx((0, 0.25 * still.size))
    # The square of a sine has the mean 1/2.
    assert split_energy(still, wave) == pytest.approx((still.size / 2, 0), abs=1e-9)
    pairs = dict(clip_energies([still, wave, still + 1], ["a", "b", "a"]))
    assert [*pairs] == [(0, 1), (1, 2)]
    assert pairs[1, 2] == pytest.approx({"motion": still.size / 2, "appearance": still.size})


def test_the_verdicts_slope_is_that_of_least_squares():
    rng = np.random.default_rng(3)
    predicted, measured = rng.normal(size=7), rng.normal(size=(5, 7))
    slope, offset = slope_and_offset(predicted, measured)
    assert slope == pytest.approx(np.polyfit(predicted, measured.T, 1)[0])
    assert offset == pytest.approx(measured.mean(1) - predicted.mean())


def test_a_new_measurement_has_the_errors_of_two():
    moved = changed(Interval(1.0, 0.5, 2.0, 8, 8), -3.0)
    assert (moved.mean, moved.low, moved.high) == pytest.approx((-2, -2 - 0.5 * 2**0.5, -2 + 2**0.5))


def test_bundled_offsets_are_those_of_the_published_tables():
    offsets = {(onset.model, onset.quantity): onset for onset in read_offsets().onsets}
    folder = Path(__file__).parents[3] / "results" / "shapes"
    measured = {}
    for file, column in (("probe_analysis", "set at log-SNR"), ("boundary", "boundary, log-SNR")):
        for line in csv.DictReader((folder / f"{file}.csv").read_text(encoding="utf-8").splitlines()):
            if line["column"] == column and "motion-dominant" in line["block"] + line["setting"]:
                model = line["setting"].split(",")[0] if file == "boundary" else line["block"].split(",")[0]
                quantity = BOUNDARY if file == "boundary" else line["setting"]
                measured[model, quantity] = float(line["mean"] or "nan")
    assert len({model for model, _ in measured}) == 3
    for key, onset in offsets.items():
        if key in measured:
            assert onset.measured == pytest.approx(measured[key], abs=1e-3)
    energies = read_energies(read_published(folder / "predict.parquet"))
    for model, of_model in energies.items():
        if (model, "motion") in offsets:
            for factor, values in of_model.items():
                ideal = math.log(4 / np.median(values.values))
                assert offsets[model, factor].ideal == pytest.approx(ideal, abs=1e-3)
