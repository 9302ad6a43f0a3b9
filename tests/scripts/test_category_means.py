"""The benchmark's averaging: frames, then videos and edits, then one flat mean; kinds of edits beside."""

import numpy as np
import pytest

from motionexp.results.rows import FIELDS, ROWS_NAME, Row, append_rows
from motionexp.scripts import category_means
from motionexp.scripts.category_means import flat_means, settings_of

COMMON = {"metric_version": 1, "suite": "tgve", "model": "m", "method": "base", "tau": 1000.0, "steps": 2}


def rows():
    """Two videos; one lacks an edit, and one edit has more seeds than the others."""
    rng, made_rows = np.random.default_rng(0), []
    for reference, kind, seeds in (("a", "style", 1), ("a", "object", 3), ("b", "style", 1)):
        for seed in range(seeds):
            for metric in ("text", "pick"):
                made_rows.append(
                    Row(
                        metric=metric, value=rng.random(), reference=reference, edit_kind=kind, seed=seed,
                        edit_caption=f"{kind} of {reference}", sample_id=f"{reference}{kind}{seed}",
                        score_id=f"{reference}{kind}{seed}{metric}", **COMMON,
                    )
                )  # fmt: skip
    return made_rows


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
        metric="text", value=1.0, reference="a", edit_kind="style", edit_caption="c",
        strata={"sanity_baseline": "frozen"}, **COMMON,
    )  # fmt: skip
    of_no_edit = Row(metric="energy", value=1.0, reference="energies", **COMMON)
    assert len(settings_of([*rows(), anchor, of_no_edit])) == 2
    append_rows(tmp_path / ROWS_NAME, [*rows(), anchor])
    assert category_means.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "anchor: frozen" in shown
    assert "videos and edits" in shown
    assert category_means.main([str(tmp_path / "nowhere")]) == 2


TUNED = {
    "rank": 4, "alpha": 4.0, "projections": ["v", "o"], "attention": "motion", "guidance_scale": 7.5,
    "steps": 2, "sampling_tau": None, "soft_window": None, "seed": 0, "tau": 700.0,
}  # fmt: skip


def tuned(value=1.0, method="lora", **changes) -> Row:
    """One tuned sample's row; `changes` of fields, or else of settings."""
    row_fields = {key: changes.pop(key) for key in list(changes) if key in FIELDS}
    fields = (
        COMMON | {"method": method, "precision": "fp32", "weights_hash": "w" * 64, "tau": 700.0} | row_fields
    )
    fields = {"metric": "text", "reference": "a", "edit_kind": "style", "edit_caption": "c"} | fields
    return Row(value=value, settings=TUNED | changes, **fields)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"rank": 16}, ("rank=4", "rank=16")),
        ({"projections": ["q"]}, ("projections=['v', 'o']", "projections=['q']")),
        ({"attention": "cross"}, ("attention=motion", "attention=cross")),
        ({"guidance_scale": 9.0}, ("guidance_scale=7.5", "guidance_scale=9")),
        ({"steps": 50}, ("steps=2", "steps=50")),
        ({"sampling_tau": 0.0}, ("sampling_tau=null", "sampling_tau=0")),
        ({"soft_window": [[400, 0]]}, ("soft_window=null", "soft_window=[[400, 0]]")),
        ({"precision": "bf16"}, ("precision=fp32", "precision=bf16")),
        ({"weights_hash": "v" * 64}, ("weights=wwwwwwwwwwww", "weights=vvvvvvvvvvvv")),
        ({"strata": {"appearances": "2"}}, ("appearances=null", "appearances=2")),
        ({"height": 64}, ("height=null", "height=64")),
    ],
)
def test_samples_of_other_settings_are_no_seeds(other, said):
    by_name = settings_of([tuned(1.0), tuned(2.0, **other), tuned(3.0, seed=1)])
    name = "tgve, m, lora, τ = 700, 0 steps, scale 1"
    assert {setting: [row.value for row in members] for setting, members in by_name.items()} == {
        f"{name}, {said[0]}": [1.0, 3.0],
        f"{name}, {said[1]}": [2.0],
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
    ("other", "said"),
    [
        ({"reference": "b", "metric_model": "x"}, "metric_model of text: x, y"),
        ({"reference": "b", "metric_version": 2}, "metric_version of text: 1, 2"),
        ({"seed": 1, "reference_hash": "other"}, "reference_hash of tgve a"),
        ({}, "2 rows of text for a, edit 'style', seed None: other videos"),
    ],
)
def test_rows_without_a_mean_are_refused(tmp_path, capsys, other, said):
    base = {"metric_model": "y", "reference_hash": "one"}
    one = tuned(**base, sample_id="1", score_id="1")
    two = tuned(**(base | other), sample_id="2", score_id="2")
    append_rows(tmp_path / ROWS_NAME, [one, two])
    assert category_means.main([str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    # Another seed= is a seed.
    append_rows(tmp_path / "seeds" / ROWS_NAME, [one, tuned(**base, seed=1, sample_id="3", score_id="3")])
    assert category_means.main([str(tmp_path / "seeds")]) == 0
