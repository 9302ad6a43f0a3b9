import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.schedule import NoiseSchedule
from motionexp.errors import InputError
from motionexp.probes.analysis.rows import (
    bootstrap_weights,
    interval,
    means,
    new_appearance,
    new_attributes,
    new_motion,
    old_appearance,
    predicted_log_snr,
    read_probes,
)
from motionexp.probes.timesteps import EDGES
from motionexp.results.intervals import mean_interval
from motionexp.results.log_snr import log_snr_at, timestep_at
from tests.support.made_probes import World, probe_rows

KEY = ("tiny_latte", "motion-dominant")


@pytest.fixture(scope="module")
def rows():
    return probe_rows(World(), 2)


@pytest.fixture
def probes(rows):
    return {method: values[KEY] for method, values in read_probes(rows).items()}


def by_hand(rows, method, metric, reference, start, end):
    values = [
        row.value
        for row in rows
        if (row.method, row.metric, row.reference) == (method, metric, reference)
        and (row.tau_start, row.tau_end) == (start, end)
        and not math.isnan(row.value)
    ]
    return np.mean(values) if values else math.nan


@pytest.mark.parametrize(
    ("method", "metric"),
    [("tampering", "new_colour"), ("tampering", "flow_similarity"), ("motion_tampering", "new_motion")],
)
def test_a_pair_holds_the_mean_of_a_reference_s_edits_and_the_diagonal_the_control(
    rows, probes, method, metric
):
    values = probes[method].values[metric]
    rows = [row for row in rows if (row.method, row.metric) == (method, metric)]
    assert values.shape == (2, 11, 11)
    for number, reference in enumerate(probes[method].references):
        for i, start in enumerate(EDGES):
            for j, end in enumerate(EDGES[:i]):
                expected = by_hand(rows, method, metric, reference, str(start), str(end))
                assert values[number, i, j] == pytest.approx(expected)
            assert values[number, i, i] == pytest.approx(
                by_hand(rows, method, metric, reference, "none", "none")
            )
            assert np.isnan(values[number, i, i + 1 :]).all()


def test_partial_guidance_begins_from_the_reference_s_own_video(rows, probes):
    expected = by_hand(rows, "partial_guidance", "flow_similarity", "01", "reference", "reference")
    assert expected == 1
    assert probes["partial_guidance"].values["flow_similarity"][1, 4, 4] == expected


def test_samples_are_counted_by_metric(probes):
    assert probes["tampering"].samples("new_colour") == 4
    assert probes["tampering"].samples("text_alignment") == probes["tampering"].samples() == 8
    assert probes["tampering"].of(["01"]).samples() == 4
    assert probes["tampering"].of(["01"]).values["new_shape"].shape == (1, 11, 11)


def test_appearance_weigh_each_attribute_the_same_and_fall_back_on_clip(probes):
    values = probes["tampering"].values
    appearance = [values[f"new_{name}"] for name in ("colour", "shape", "surface", "background")]
    np.testing.assert_allclose(new_appearance(probes["tampering"]), np.mean(appearance, axis=0))
    without = {name: array for name, array in values.items() if name[:4] not in ("new_", "old_")}
    plain = replace(probes["tampering"], values=without)
    np.testing.assert_array_equal(new_appearance(plain), without["text_alignment"])
    assert list(new_attributes(plain)) == ["appearance"]
    assert old_appearance(plain) is None
    np.testing.assert_array_equal(new_motion(plain), -without["flow_similarity"])


def test_motion_is_read_where_it_was_to_change(probes):
    moved = probes["motion_tampering"]
    assert new_motion(moved) is moved.values["new_motion"]
    np.testing.assert_array_equal(
        new_motion(probes["tampering"]), -probes["tampering"].values["flow_similarity"]
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tau_start": "100", "tau_end": "200"}, "not on the grid"),
        ({"tau_start": "250"}, "not on the grid"),
        ({"tau_start": "700", "tau_end": "300"}, "two values"),
    ],
)
def test_rows_off_the_grid_or_twice_are_named(rows, wrong, message):
    first = next(row for row in rows if row.tau_start == "1000")
    with pytest.raises(
        InputError,
        match=f"{first.metric}, tampering on tiny_latte, 00.*{message}|two values of {first.metric}",
    ):
        read_probes([*rows, replace(first, **wrong)])


def test_edits_of_one_kind_are_told_apart_by_their_captions(rows):
    first = [
        row for row in rows if (row.method, row.reference, row.edit_kind) == ("tampering", "00", "style")
    ]
    second = [replace(row, edit_caption="another", value=row.value + 1) for row in first]
    both = read_probes([*first, *second])["tampering"][KEY]
    alone = read_probes(first)["tampering"][KEY]
    np.testing.assert_allclose(both.values["text_alignment"], alone.values["text_alignment"] + 0.5)
    assert both.samples() == 2 * alone.samples() == 2


@pytest.mark.parametrize("lost", [("600", "400"), ("none", "none")])
def test_a_probe_that_was_interrupted_is_named(rows, lost):
    def is_lost(row):
        return row.method == "tampering" and row.reference == "01" and (row.tau_start, row.tau_end) == lost

    rest = [row for row in rows if not is_lost(row) and row.tau_start != "reference"]
    with pytest.raises(
        InputError, match="tampering on tiny_latte, 01, edit 'background': some of the 55 pairs"
    ):
        read_probes([row for row in rest if row.method == "tampering"])


def test_means_leave_out_what_is_not_there():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3, 2))
    values[1, 0] = values[:, 2, 1] = math.nan
    weights = bootstrap_weights(4)[:5]
    for drawn, got in zip(weights, means(values, weights), strict=True):
        for place in np.ndindex(3, 2):
            finite = [
                (w, v[place]) for w, v in zip(drawn, values, strict=True) if not math.isnan(v[place]) and w
            ]
            total = sum(w for w, _ in finite)
            expected = sum(w * v for w, v in finite) / total if total else math.nan
            assert got[place] == pytest.approx(expected, nan_ok=True)


def test_the_interval_of_a_mean_is_the_house_s(monkeypatch):
    monkeypatch.undo()
    values = np.random.default_rng(0).normal(size=7)
    ours, house = interval(means(values, bootstrap_weights(7)), 7, 7), mean_interval(list(values), "abcdefg")
    assert (ours.mean, ours.low, ours.high) == pytest.approx((house.mean, house.low, house.high))
    assert math.isnan(interval(np.ones(5), 3, 1).low)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_log_snr_is_the_schedule_s_and_goes_back(zero_snr):
    config = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
    }
    terminal = {"rescale_betas_zero_snr": zero_snr, "prediction_type": "v_prediction"}
    schedule = NoiseSchedule.from_config({**config, **terminal})
    table = schedule.log_snr(torch.arange(1001)).double().numpy()
    t = np.array([0.0, 3.0, 400.0, 998.0])
    np.testing.assert_allclose(log_snr_at(t, table), table[t.astype(int)])
    np.testing.assert_allclose(timestep_at(table[t.astype(int)], table), t, atol=1e-6)
    assert log_snr_at(1000.0, table) == -math.inf
    assert np.isnan(log_snr_at(math.nan, table))
    assert table[300] > log_snr_at(300.5, table) > table[301]


def test_log_snr_of_flow_matching_is_infinite_at_both_ends():
    table = FlowSchedule().log_snr(torch.arange(1001)).double().numpy()
    np.testing.assert_allclose(
        log_snr_at(np.array([250.0, 500.0, 750.0]), table), [2 * math.log(3), 0, -2 * math.log(3)], atol=1e-6
    )
    assert (log_snr_at(0.0, table), log_snr_at(1000.0, table)) == (math.inf, -math.inf)
    assert timestep_at(2 * math.log(3), table) == pytest.approx(250, abs=1e-3)


def test_energies_predict_a_log_snr(rows):
    predicted = predicted_log_snr(rows)
    assert predicted["tiny_latte", "motion-dominant", "motion"] == pytest.approx(-5)
    assert len(predicted) == 5
