"""The benchmark's averaging: frames, then videos and edits, then one flat mean; kinds of edits beside."""

import numpy as np
import pytest

from motionexp.results.rows import FIELDS, ROWS_NAME, Row, append_rows
from motionexp.scripts import category_means
from motionexp.scripts.category_means import flat_means, settings_of

COMMON = {"metric_version": 1, "suite": "tgve", "model": "m", "method": "base", "tau": 1000.0, "steps": 2}


def rows():
    """Two videos; one lacks an edit, and one edit has more seeds than the others."""
    samples = [("a", "style", 0), *(("a", "object", seed) for seed in range(3)), ("b", "style", 0)]
    return [
        Row(
            metric=metric, value=float(np.sin(7 * number)), reference=reference, edit_kind=kind, seed=seed,
            edit_caption=f"{kind} of {reference}", sample_id=str(number), score_id=f"{number}{metric}",
            **COMMON,
        )
        for number, (reference, kind, seed) in enumerate(samples)
        for metric in ("text", "pick")
    ]  # fmt: skip


def test_every_video_and_edit_weighs_the_same():
    style_a, *objects, style_b = (row.value for row in rows() if row.metric == "text")
    means = flat_means(rows())["text"]
    # Neither over samples nor over videos.
    assert means.flat == pytest.approx((style_a + np.mean(objects) + style_b) / 3)
    assert means.kinds == pytest.approx({"style": (style_a + style_b) / 2, "object": np.mean(objects)})
    assert means.pairs == 3


def test_what_abstained_is_left_out():
    silent = Row(metric="text", value=float("nan"), reason="no", reference="c", edit_kind="style", **COMMON)
    assert flat_means([*rows(), silent]) == flat_means(rows())


def test_settings_have_tables_of_their_own(tmp_path, capsys):
    anchor = Row(
        metric="text", value=1.0, reference="a", edit_kind="style", edit_caption="c",
        strata={"sanity_baseline": "frozen"}, **COMMON,
    )  # fmt: skip
    of_no_edit = Row(metric="energy", value=1.0, reference="energies", **COMMON)
    assert len(settings_of([*rows(), anchor, of_no_edit])) == 2
    append_rows(tmp_path / ROWS_NAME, [*rows(), anchor])
    assert category_means.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "frozen" in shown
    assert category_means.main([str(tmp_path / "nowhere")]) == 2


TUNED = {
    "rank": 4, "alpha": 4.0, "projections": ["v", "o"], "attention": "motion", "guidance_scale": 7.5,
    "steps": 2, "sampling_tau": None, "soft_window": None, "seed": 0, "tau": 700.0,
}  # fmt: skip


def tuned(value=1.0, method="lora", **changes) -> Row:
    """One tuned sample's row; `changes` of fields, or else of settings."""
    fields = COMMON | {"metric": "text", "reference": "a", "edit_kind": "style", "edit_caption": "c"}
    fields |= {"method": method, "precision": "fp32", "weights_hash": "w" * 64, "tau": 700.0}
    fields |= {key: changes.pop(key) for key in list(changes) if key in FIELDS}
    return Row(value=value, settings=TUNED | changes, **fields)


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"rank": 16}, ("rank=4", "rank=16")),
        ({"attention": "cross"}, ("attention=motion", "attention=cross")),
        ({"guidance_scale": 9.0}, ("guidance_scale=7.5", "guidance_scale=9")),
        ({"steps": 50}, ("steps=2", "steps=50")),
        ({"sampling_tau": 0.0}, ("sampling_tau=null", "sampling_tau=0")),
        ({"precision": "bf16"}, ("precision=fp32", "precision=bf16")),
        ({"weights_hash": "v" * 64}, ("weights=wwwwwwwwwwww", "weights=vvvvvvvvvvvv")),
        ({"strata": {"appearances": "2"}}, ("appearances=null", "appearances=2")),
        ({"height": 64}, ("height=null", "height=64")),
    ],
)
def test_samples_of_different_settings_are_no_seeds(changes, texts):
    by_name = settings_of([tuned(1.0), tuned(2.0, **changes), tuned(3.0, seed=1)])
    name = "tgve, m, lora, τ = 700, 0 steps, scale 1"
    assert {setting: [row.value for row in members] for setting, members in by_name.items()} == {
        f"{name}, {texts[0]}": [1.0, 3.0],
        f"{name}, {texts[1]}": [2.0],
    }


def test_what_has_no_part_in_a_video_does_not_part_its_rows():
    # A base model was not tuned; a row without a setting is older than the setting.
    assert len(settings_of([tuned(method="base", rank=4), tuned(method="base", rank=16)])) == 1
    older = tuned()
    del older.settings["attention"]
    assert len(settings_of([tuned(), older])) == 1
    frozen = {"strata": {"sanity_baseline": "frozen"}, "method": "sanity_baseline"}
    (anchors,) = settings_of([tuned(**frozen), tuned(**frozen, rank=16, precision="bf16")]).values()
    assert len(anchors) == 2
    external = {"metric": "text", "model": "theirs", "method": "external", "steps": 0, "tau": 1000.0}
    sizes = [tuned(**external, height=height) for height in (64, 64, 128)]
    assert [len(members) for members in settings_of(sizes).values()] == [2, 1]


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"reference": "b", "metric_model": "x"}, "metric_model of text: x, y"),
        ({"reference": "b", "metric_version": 2}, "metric_version of text: 1, 2"),
        ({"seed": 1, "reference_hash": "other"}, "reference_hash of tgve a"),
        ({}, "text for a, edit 'style', seed None"),
    ],
)
def test_rows_without_a_mean_are_refused(tmp_path, capsys, changes, texts):
    base = {"metric_model": "y", "reference_hash": "one"}
    one = tuned(**base, sample_id="1", score_id="1")
    two = tuned(**(base | changes), sample_id="2", score_id="2")
    append_rows(tmp_path / ROWS_NAME, [one, two])
    assert category_means.main([str(tmp_path)]) == 2
    assert texts in capsys.readouterr().err
    # Another seed= is a seed.
    append_rows(tmp_path / "seeds" / ROWS_NAME, [one, tuned(**base, seed=1, sample_id="3", score_id="3")])
    assert category_means.main([str(tmp_path / "seeds")]) == 0
