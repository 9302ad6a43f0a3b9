"""The benchmark's averaging: frames, then videos and edits, then one flat mean; kinds of edits beside."""

import numpy as np
import pytest

from motionexp.report import category_means
from motionexp.report.category_means import flat_means, settings_of
from motionexp.results import ROWS_NAME, Row, append_rows

COMMON = {"metric_version": 1, "suite": "tgve", "model": "m", "method": "base", "tau": 1000.0, "steps": 2}


def rows():
    """Two videos; one lacks an edit, and one edit has more seeds than the others."""
    rng, found = np.random.default_rng(0), []
    for reference, kind, seeds in (("a", "style", 1), ("a", "object", 3), ("b", "style", 1)):
        for seed in range(seeds):
            for metric in ("text", "pick"):
                found.append(
                    Row(
                        metric=metric, value=rng.random(), reference=reference, edit_kind=kind, seed=seed,
                        edit_caption=f"{kind} of {reference}", sample_id=f"{reference}{kind}{seed}",
                        score_id=f"{reference}{kind}{seed}{metric}", **COMMON,
                    )
                )  # fmt: skip
    return found


def test_every_video_and_edit_weighs_the_same():
    every = rows()
    value = {(row.reference, row.edit_kind, row.seed): row.value for row in every if row.metric == "text"}
    pair = {
        ("a", "style"): value["a", "style", 0],
        ("a", "object"): np.mean([value["a", "object", seed] for seed in range(3)]),
        ("b", "style"): value["b", "style", 0],
    }
    means = flat_means(every)["text"]
    assert means.flat == pytest.approx(sum(pair.values()) / 3)
    assert means.flat != pytest.approx(np.mean(list(value.values())))  # not over samples
    by_video = [np.mean([pair["a", "style"], pair["a", "object"]]), pair["b", "style"]]
    assert means.flat != pytest.approx(np.mean(by_video))  # nor over videos
    assert means.kinds["style"] == pytest.approx((pair["a", "style"] + pair["b", "style"]) / 2)
    assert means.kinds["object"] == pytest.approx(pair["a", "object"])
    assert means.pairs == 3


def test_what_abstained_is_left_out():
    silent = Row(metric="text", value=float("nan"), reason="no", reference="c", edit_kind="style", **COMMON)
    assert flat_means([*rows(), silent]) == flat_means(rows())


def test_settings_have_tables_of_their_own(tmp_path, capsys):
    anchor = Row(
        metric="text", value=1.0, reference="a", edit_kind="style", strata={"anchor": "frozen"}, **COMMON
    )
    assert len(settings_of([*rows(), anchor])) == 2
    append_rows(tmp_path / ROWS_NAME, [*rows(), anchor])
    assert category_means.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "anchor: frozen" in shown
    assert "videos and edits" in shown
    assert category_means.main([str(tmp_path / "nowhere")]) == 2
