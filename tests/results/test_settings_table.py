"""Tables of any rows by some of their settings: lines, baselines, what is refused, and 80 columns."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from rich.console import Console

from motionexp.errors import InputError
from motionexp.results.formats import to_csv, to_markdown
from motionexp.results.settings_table import differing_names, settings_tables
from motionexp.results.terminal import print_table
from tests.support.made_rows import made_row

VALUES = {
    "velocity_similarity": 0.1,
    "nuisance_similarity": 0.5,
    "nuisance_chance": 0.3,
    "replaced_attributes": 0.25,
    "text_alignment": 30.0,
    "frame_consistency_consecutive": 90.0,
    "pick_score": 20.0,
    "flow_similarity": 0.2,
}


def row_of(metric, tau, reference, rank=4, seed=0, **changes):
    base = tau == 1000
    settings = {
        "tau": float(tau),
        "rank": rank,
        "steps": 25,
        "seed": seed,
        "scoring": {"pairs": "consecutive"},
    }
    lift = {0: 0.3, 700: 0.2, 1000: 0.0}[tau] + (0 if base else rank / 100)
    fields = {
        "metric": metric,
        "value": VALUES[metric] + reference / 100 + lift * (metric != "nuisance_chance"),
        "sample_id": f"{tau} {reference} {rank} {seed} {changes.get('model')}",
        "reference": f"r{reference}",
        "method": "base" if base else "lora",
        "tau": float(tau),
        "settings": settings,
        "steps": 25,
    }
    return made_row(**fields | changes)


def rows_of(taus=(1000, 0, 700), ranks=(4,), seeds=(0,), references=3, **changes):
    settings = product(VALUES, taus, range(references), ranks, seeds)
    return [
        row_of(metric, tau, reference, rank, seed, **changes)
        for metric, tau, reference, rank, seed in settings
        if tau != 1000 or rank == ranks[0]
    ]


def labels(block):
    return [line.labels for line in block.lines]


def mean(line, key):
    return next(cell.interval.mean for cell in line.cells if cell.column == key)


def test_a_line_for_each_setting_and_differences_to_all_timesteps():
    table, further = settings_tables(rows_of(), ["tau"], "t")
    means, differences = table.blocks
    assert labels(means) == [["base model"], ["0"], ["700"]]
    assert labels(differences) == [["base model"], ["700"]]
    assert "tau=0" in differences.title
    line = means.lines[2]
    # By hand: 0.1 + 0.01 (the mean reference) + 0.2 + 0.04.
    assert mean(line, "motion") == pytest.approx(0.35)
    assert mean(line, "nuisances") == pytest.approx(0.5 + 0.24 - 0.3)
    assert mean(line, "replaced") == pytest.approx(0.24), "the base model's rate is subtracted"
    assert mean(means.lines[0], "replaced") == 0
    assert mean(differences.lines[1], "motion") == pytest.approx(-0.1)
    assert [line.n for line in means.lines] == ["3 (3)"] * 3
    assert further.columns == ["flow similarity ↑"]


def test_without_all_timesteps_the_base_model_is_the_baseline():
    table, _ = settings_tables(rows_of(taus=(1000, 700), ranks=(1, 16)), ["rank"], "t")
    means, differences = table.blocks
    assert labels(means) == [["base model", "–"], ["700", "1"], ["700", "16"]]
    assert "base model" in differences.title
    assert [mean(line, "motion") for line in differences.lines] == pytest.approx([0.21, 0.36])


def test_the_baseline_has_the_line_s_other_settings():
    rows = rows_of(ranks=(1, 4), seeds=(0, 1))
    means, differences = settings_tables(rows, ["tau", "rank", "seed"], "t")[0].blocks
    assert labels(means)[:3] == [["base model", "–", "0"], ["base model", "–", "1"], ["0", "1", "0"]]
    assert labels(differences) == [["700", rank, seed] for rank in "14" for seed in "01"]
    assert [mean(line, "motion") for line in differences.lines] == pytest.approx([-0.1] * 4)


def test_each_suite_and_model_has_a_block_and_dashes_have_a_reason():
    clip = [
        row for row in rows_of(suite="clip", model="latte") if row.metric in ("text_alignment", "pick_score")
    ]
    rows = rows_of() + clip
    lost = replace(rows[0], value=math.nan, reason="the object is lost")
    tables = settings_tables([lost, *rows[1:]], ["tau"], "t")
    places = [[block.title.partition(":")[0] for block in table.blocks] for table in tables]
    assert ["tiny_latte on shapes"] * 2 in places
    assert ["latte on clip"] * 2 in places
    notes = "\n".join(note for table in tables for note in table.notes)
    assert "motion similarity, background leakage, edited-attribute leakage: measured from" in notes
    assert "motion similarity: no value for 1 of the 9 samples of all lines (the object is lost)" in notes


@pytest.mark.parametrize(
    ("changed", "by", "problem"),
    [
        ({"ranks": (1, 4)}, ["tau"], "rank (1, 4)"),
        ({"seeds": (0, 1)}, ["tau"], "seed (0, 1)"),
        ({}, ["rank"], "tau (0, 700)"),
        ({}, ["tau", "wrong"], "by=wrong"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_named(changed, by, problem):
    with pytest.raises(InputError) as error:
        settings_tables(rows_of(**changed), by, "t")
    assert problem in str(error.value)


def test_other_weights_of_one_model_are_refused():
    with pytest.raises(InputError, match="weights_hash of tiny_latte"):
        settings_tables(rows_of() + rows_of(weights_hash="v", taus=(700,)), ["tau"], "t")


def test_probes_stay_out_and_other_systems_have_a_line():
    probed = [replace(row, tau_start="500", method="tampering") for row in rows_of(taus=(700,))]
    external = [
        replace(row, method="external", model="theirs", tau=1000.0, settings={})
        for row in rows_of(taus=(700,))
    ]
    table = settings_tables(rows_of() + probed + external, ["tau"], "t")[0]
    assert table.blocks[0].lines[2].n == "3 (3)"
    assert [block.title for block in table.blocks][2] == "theirs on shapes"
    assert labels(table.blocks[2]) == [["another system"]]
    assert "base model's is subtracted, which has no rows" in "\n".join(table.notes)


def test_a_line_that_lacks_samples_is_named():
    rows = [row for row in rows_of() if (row.tau, row.reference) != (700, "r2")]
    table = settings_tables(rows, ["tau"], "t")[0]
    assert [line.n for line in table.blocks[0].lines] == ["3 (3)", "3 (3)", "2 (2)"]
    assert any(note.startswith("700: lacks 1 of 3 samples") for note in table.notes)
    assert mean(table.blocks[1].lines[1], "motion") == pytest.approx(-0.1), "of the samples that both have"


def test_edits_of_one_kind_are_samples_of_their_own():
    rows = [replace(row, edit_caption=caption) for row in rows_of() for caption in ("a", "b")]
    assert settings_tables(rows, ["tau"], "t")[0].blocks[0].lines[0].n == "6 (3)"


def test_names_that_differ_are_found_by_themselves():
    assert differing_names(rows_of(ranks=(1, 4), seeds=(0, 1))) == ["tau", "rank", "seed"]
    assert differing_names(rows_of(taus=(1000,))) == []


@pytest.mark.parametrize("references", [1, 6])
def test_no_line_is_wider_than_80_columns_and_markdown_has_all_columns(references, capsys):
    rows = rows_of(ranks=(1, 4), references=references)
    noisy = [replace(row, value=row.value - 10 * np.sin(number)) for number, row in enumerate(rows)]
    tables = settings_tables(noisy, ["tau", "rank"], "12 jobs by tau, rank")
    print_table(Console(width=80), tables[0])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "|" not in shown
    legend = [line for line in shown.splitlines() if line.startswith("Mean")]
    assert len(legend) == 1
    markdown = "\n".join(map(to_markdown, tables))
    assert all(label in markdown for label in ("motion similarity ↑", "pick score ↑", "flow similarity ↑"))
    assert to_csv(tables).count("measured") == 7 * (5 + 2)
