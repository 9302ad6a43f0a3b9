import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.schedule import NoiseSchedule
from motionexp.errors import InputError
from motionexp.probes.analysis import rows as readings
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
    return {method: values[KEY] for method, values in readings.read_probes(rows).items()}


@pytest.mark.parametrize(
    ("method", "metric", "control"),
    [
        ("tampering", "new_colour", "none"),
        ("tampering", "flow_similarity", "none"),
        ("motion_tampering", "new_motion", "none"),
        ("partial_guidance", "flow_similarity", "reference"),
    ],
)
def test_a_pair_holds_the_mean_of_a_reference_s_edits_and_the_diagonal_the_control(
    rows, probes, method, metric, control
):
    cells = defaultdict(list)
    for row in rows:
        if (row.method, row.metric) == (method, metric) and not math.isnan(row.value):
            cells[row.reference, row.tau_start, row.tau_end].append(row.value)
    values = probes[method].values[metric]
    assert values.shape == (2, 11, 11)
    for number, i, j in np.ndindex(values.shape):
        pair = (control, control) if i == j else (str(EDGES[i]), str(EDGES[j]))
        # No pair lies above the diagonal.
        expected = np.mean(cells[probes[method].references[number], *pair] or [math.nan])
        assert values[number, i, j] == pytest.approx(expected, nan_ok=True)


def test_samples_are_counted_by_metric(probes):
    assert probes["tampering"].samples("new_colour") == 4
    assert probes["tampering"].samples("text_alignment") == probes["tampering"].samples() == 8
    assert probes["tampering"].of(["01"]).samples() == 4
    assert probes["tampering"].of(["01"]).values["new_shape"].shape == (1, 11, 11)


def test_attributes_weigh_equally_and_clip_and_flow_stand_in_for_a_classifier(probes):
    probe, moved = probes["tampering"], probes["motion_tampering"]
    appearance = [probe.values[f"new_{name}"] for name in ("colour", "shape", "surface", "background")]
    np.testing.assert_allclose(readings.new_appearance(probe), np.mean(appearance, axis=0))
    assert readings.new_motion(moved) is moved.values["new_motion"]
    # No edit of the appearance has a new motion.
    np.testing.assert_array_equal(readings.new_motion(probe), -probe.values["flow_similarity"])
    without = {name: array for name, array in probe.values.items() if name[:4] not in ("new_", "old_")}
    plain = replace(probe, values=without)
    assert list(readings.new_attributes(plain)) == ["appearance"]
    np.testing.assert_array_equal(readings.new_appearance(plain), without["text_alignment"])
    assert readings.old_appearance(plain) is None
    np.testing.assert_array_equal(readings.new_motion(plain), -without["flow_similarity"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tau_start": "250"}, "{}, tampering on tiny_latte, 00.*250"),
        ({"tau_start": "700", "tau_end": "300"}, "{}, tampering on tiny_latte, 00.*700"),
    ],
)
def test_rows_off_the_grid_or_twice_are_named(rows, wrong, message):
    first = next(row for row in rows if row.tau_start == "1000")
    with pytest.raises(InputError, match=message.format(first.metric)):
        readings.read_probes([*rows, replace(first, **wrong)])


def test_edits_of_one_kind_are_told_apart_by_their_captions(rows):
    first = [
        row for row in rows if (row.method, row.reference, row.edit_kind) == ("tampering", "00", "style")
    ]
    second = [replace(row, edit_caption="another", value=row.value + 1) for row in first]
    both = readings.read_probes([*first, *second])["tampering"][KEY]
    alone = readings.read_probes(first)["tampering"][KEY]
    np.testing.assert_allclose(both.values["text_alignment"], alone.values["text_alignment"] + 0.5)
    assert both.samples() == 2 * alone.samples() == 2


@pytest.mark.parametrize("lost", [("600", "400"), ("none", "none")])
def test_a_probe_that_was_interrupted_is_named(rows, lost):
    rest = [row for row in rows if row.method == "tampering" and row.tau_start != "reference"]
    rest = [row for row in rest if (row.reference, row.tau_start, row.tau_end) != ("01", *lost)]
    with pytest.raises(InputError, match=r"tampering on tiny_latte, 01, edit 'background': .* 55 "):
        readings.read_probes(rest)


def test_means_leave_out_what_is_not_there():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3, 2))
    values[1, 0] = values[:, 2, 1] = math.nan
    weights = readings.bootstrap_weights(4)[:5]
    for drawn, got in zip(weights, readings.means(values, weights), strict=True):
        for place in np.ndindex(3, 2):
            finite = np.isfinite(values[:, *place])
            defined = drawn[finite].sum() > 0
            slow = np.average(values[finite, *place], weights=drawn[finite]) if defined else math.nan
            assert got[place] == pytest.approx(slow, nan_ok=True)


def test_the_interval_of_a_mean_is_the_house_s(monkeypatch):
    monkeypatch.undo()
    values = np.random.default_rng(0).normal(size=7)
    ours = readings.interval(readings.means(values, readings.bootstrap_weights(7)), 7, 7)
    house = mean_interval(list(values), "abcdefg")
    assert (ours.mean, ours.low, ours.high) == pytest.approx((house.mean, house.low, house.high))
    assert math.isnan(readings.interval(np.ones(5), 3, 1).low)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_log_snr_is_the_schedule_s_and_goes_back(zero_snr):
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    terminal = {"rescale_betas_zero_snr": zero_snr, "prediction_type": "v_prediction"}
    schedule = NoiseSchedule.from_config({**betas, **terminal})
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
    predicted = readings.predicted_log_snr(rows)
    assert predicted["tiny_latte", "motion-dominant", "motion"] == pytest.approx(-5)
    assert len(predicted) == 5


def test_energies_of_a_model_count_for_every_shift(rows):
    probes = [row for row in rows if row.method != "energies"]
    shifted = [
        replace(row, settings={**row.settings, "shift": shift}) for shift in (1.0, 8.0) for row in probes
    ]
    predicted = readings.predicted_log_snr([*shifted, *(row for row in rows if row.method == "energies")])
    for shift in (1, 8):
        assert predicted[f"tiny_latte, shift {shift}", "motion-dominant", "motion"] == pytest.approx(-5)
