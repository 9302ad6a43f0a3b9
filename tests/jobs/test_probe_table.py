"""The tables that probes print on a terminal of 80 columns."""

import math
from dataclasses import replace

import pytest
from rich.console import Console

from motionexp.config.metrics import chosen_metrics
from motionexp.jobs import probe_inversion, probe_tree
from motionexp.jobs.summary import headings
from tests.support.made_rows import rank_row

SHOWN = headings(chosen_metrics(None, "probes"))


def rows(absent: str = ""):
    for start in ("1000", "900", "none", "reference"):
        for metric in SHOWN:
            value = math.nan if metric == absent and start != "reference" else -10.5
            row = replace(rank_row(metric, 0, 1000.0, 4), value=value, tau_start=start, sample_id=start)
            yield replace(row, tau_end="0" if start.isdigit() else start)


@pytest.fixture
def console() -> Console:
    return Console(width=80)


def test_headings_break_at_words_and_no_line_is_wider_than_80_columns(console, capsys):
    probe_tree.print_means(console, "tampering", list(rows()))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    words = shown.split()
    assert {word for heading, _ in SHOWN.values() for word in heading.split()} <= {*words}
    assert "reference" in words
    assert "no value" not in shown


def test_a_column_without_a_value_is_named_below_the_table(console, capsys):
    absent = next(iter(SHOWN))
    probe_tree.print_means(console, "tampering", list(rows(absent)))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("no value"))
    assert line.endswith(SHOWN[absent][0])


def test_the_inversion_s_table_has_whole_words(console, capsys):
    row = rank_row("reconstruction_psnr", 0, 1000.0, 4)
    both = [replace(row, metric=name, strata={"prompt": "caption", "contrast": "appearance-dominant"})
            for name in probe_inversion.METRICS]  # fmt: skip
    probe_inversion.print_means(console, both)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert {"appearance-dominant", "caption", "VAE's,"} <= {*shown.split()}
