"""The rows that a layout publishes."""

import pytest

from motionexp.errors import InputError
from motionexp.results.comparisons import Comparison
from motionexp.results.layout import EqualLeakage, selected_rows
from motionexp.results.rows import append_rows
from tests.support.made_rows import rank_row, rank_rows


def test_a_layout_may_name_the_references_of_each_model(ranks, tmp_path):
    append_rows(tmp_path / "rows.jsonl", rank_rows())
    for references, names in (
        ({"tiny_latte": "r0, r2", "tiny_unet3d": "r1"}, {"r0", "r2"}),
        ({"tiny_unet3d": "r1"}, {f"r{number}" for number in range(6)}),
        ("r3", {"r3"}),
    ):
        ranks.references = references
        assert {row.reference for row in selected_rows(ranks, tmp_path)} == names


def test_selecting_by_a_name_that_no_row_has_is_refused(ranks, tmp_path):
    append_rows(tmp_path / "rows.jsonl", rank_rows())
    ranks.settings["one"].select = {"tau": "700", "rnak": "1"}
    for select in (lambda: selected_rows(ranks, tmp_path), lambda: Comparison(ranks, rank_rows())):
        with pytest.raises(InputError, match=r" rnak; .* \(contrast\)"):
            select()


def test_rows_of_no_line_are_not_published(ranks, tmp_path):
    rows = rank_rows()
    settings = {**rows[0].settings, "adapter_scale": 0.5}
    half = rank_row("pick_score", 0, settings=settings, adapter_scale=0.5, score_id="half")
    other_tau = rank_row("pick_score", 0, tau=300.0)
    strata = {"contrast": "motion-dominant", "sanity_baseline": "frozen"}
    baseline = rank_row("pick_score", 0, tau=0.0, strata=strata)
    append_rows(tmp_path / "rows.jsonl", [*rows, half, other_tau, baseline])
    published = {row.score_id for row in selected_rows(ranks, tmp_path)}
    assert published == {row.score_id for row in [*rows, baseline]}
    # At equal leakage all scales of a setting are compared.
    ranks.tables[0].equal_leakage = EqualLeakage("motion", ["nuisances"], [0.1], [0.5, 1], ["four"], ["one"])
    assert {row.score_id for row in selected_rows(ranks, tmp_path)} == published | {"half"}
