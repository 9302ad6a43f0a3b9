"""Claims on the rows of the rank experiment: p-values against scipy, verdicts, and what is refused."""

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from motionexp.errors import InputError
from motionexp.results.claims import Finding, Measure, adjusted_p, finding_of
from motionexp.results.claims_table import (
    END,
    START,
    claims_csv,
    claims_markdown,
    p_text,
    with_claims,
    write_claims,
)
from motionexp.results.comparisons import Comparison
from motionexp.results.intervals import Interval
from motionexp.results.layout import Claim, ClaimedDifference
from tests.support.made_rows import rank_rows

NOISE = np.random.default_rng(3).normal(scale=0.02, size=6)


def claim(statement="Rank 1 has less motion", ours="one", **expected: str) -> Claim:
    difference = ClaimedDifference("mine", "motion-dominant", ours, "four", expected or {"motion": "less"})
    return Claim(statement, [difference])


def noisy_rows():
    """Rank 1 has about 0.1 less motion than rank 4, and a flow that differs by noise alone."""
    return [
        replace(row, value=row.value + NOISE[int(row.reference[1])])
        if row.settings["rank"] == 1 and row.metric in ("velocity_similarity", "flow_similarity")
        else row
        for row in rank_rows()
    ]


def finding(ranks, claimed: Claim) -> Finding:
    return finding_of(claimed, "mine", Comparison(ranks, noisy_rows()))


def with_p(*p_values: float, expected: str = "more", **fields) -> Finding:
    """A finding with a measure for each p-value."""
    interval = Interval(0.25, 0.125, 0.375, 12, 6)
    measures = [Measure("", "a minus b", "motion", expected, interval, 2, p, frozenset()) for p in p_values]
    return Finding(Claim("It moves"), "mine", measures, **fields)


def test_a_claim_has_the_tables_difference_and_students_p(ranks):
    found = finding(ranks, claim())
    (measure,) = found.measures
    assert found.p == measure.p == pytest.approx(stats.ttest_1samp(NOISE - 0.1, 0).pvalue)
    assert measure.interval.mean == pytest.approx(np.mean(NOISE) - 0.1)
    assert (measure.compared, measure.of, found.references) == ("tiny_latte: 1 minus 4", "motion", 6)
    # The other direction is never shown, however far the numbers are from zero.
    assert finding(ranks, claim(motion="more")).p == 1


def test_all_that_a_claim_says_has_to_hold_and_untested_numbers_are_no_part_of_it(ranks):
    ranks.margin = 0.05
    both = finding(ranks, claim(motion="less", flow="equal"))
    equal = max(stats.ttest_1samp(sign * NOISE, -0.05, alternative="greater").pvalue for sign in (1, -1))
    assert both.p == pytest.approx(max(equal, both.measures[0].p))
    assert both.verdict(both.p) == "shown; equivalent within 0.05"
    shown = finding(ranks, claim(motion="untested", flow="equal"))
    assert math.isnan(shown.measures[0].p)
    assert shown.p == pytest.approx(equal)
    assert shown.verdict(shown.p) == "equivalent within 0.05"


def test_an_equality_shows_the_90_percent_interval_that_decides_it(ranks):
    ranks.margin = 0.05
    both = finding(ranks, claim(motion="less", flow="equal"))
    low, high = stats.t.interval(0.9, len(NOISE) - 1, np.mean(NOISE), stats.sem(NOISE))
    assert [measure.equal_interval for measure in both.measures] == [None, pytest.approx((low, high))]
    ends = f"[{low:.3f}, {high:.3f}]".replace("-", "\N{MINUS SIGN}")
    assert claims_markdown([both]).count(f"(equal: 90% interval {ends})") == 1
    rows = list(csv.DictReader(io.StringIO(claims_csv([both]))))
    assert [row["low_90"] for row in rows] == ["", f"{round(low, 8):.8g}"]


def test_a_claim_may_compare_settings_at_adapter_scales(ranks):
    rows = noisy_rows()
    rows += [
        replace(row, adapter_scale=0.5, value=row.value + 0.25, score_id=f"half {row.score_id}")
        for row in rows
        if row.tau == 700 and row.settings["rank"] == 1
    ]
    (difference,) = claim(motion="more").differences
    scaled = Claim("Half of it moves more", [replace(difference, scales=[0.5, 1.0])])
    (measure,) = finding_of(scaled, "mine", Comparison(ranks, rows)).measures
    assert measure.compared == "tiny_latte: 1, scale 0.5 minus 4, scale 1"
    assert measure.interval.mean == pytest.approx(np.mean(NOISE) + 0.15)


@pytest.mark.parametrize(
    ("p", "adjusted", "verdict"),
    [(0.01, 0.04, "shown"), (0.01, 0.06, "not after Holm's correction"), (0.2, 0.4, "not shown")],
)
def test_the_verdict_is_that_of_the_corrected_p(p, adjusted, verdict):
    assert with_p(p).verdict(adjusted) == verdict
    assert with_p(p, expected="equal", margin=0.1).verdict(adjusted) == (
        "equivalent within 0.1" if verdict == "shown" else verdict
    )


def test_the_tables_have_one_row_a_claim_with_its_p_after_holm():
    found = [with_p(0.03), with_p(0.0001, 0.02), with_p(0.2)]
    assert adjusted_p(found) == pytest.approx([0.06, 0.06, 0.2])
    lines = [line for line in claims_markdown(found).splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[-3:-1] for line in lines[1:]] == [
        ["0.060", "not after Holm's correction"],
        ["0.060", "not after Holm's correction"],
        ["0.200", "not shown"],
    ]
    rows = list(csv.DictReader(io.StringIO(claims_csv(found))))
    assert [(row["claim"], row["p"], row["claim_p"], row["holm_p"]) for row in rows[1:3]] == [
        ("2", "0.0001", "0.02", "0.06"),
        ("2", "0.02", "0.02", "0.06"),
    ]
    assert [p_text(p) for p in (0.0004, 0.0006, 0.0415)] == ["< 0.001", "0.001", "0.042"]


def test_readme_keeps_all_but_the_lines_between_its_marks(tmp_path):
    readme = f"# Mine\n\n{START}\nold\n{END}\n\nEnd.\n"
    text = with_claims(readme, [with_p(0.01)])
    assert text.startswith(f"# Mine\n\n{START}\n\n| claim |")
    assert text.endswith(f"{END}\n\nEnd.\n")
    assert (
        "| It moves | motion 0.25 [0.12, 0.38] | 6 | 0.010 | shown | [mine](experiments/README.md#mine) |"
        in text
    )
    assert with_claims(text, [with_p(0.01)]) == text
    (tmp_path / "README.md").write_text(readme)
    paths = write_claims(tmp_path, [with_p(0.01)])
    assert [path.name for path in paths] == ["claims.md", "claims.tex", "claims.csv", "README.md"]
    assert "It moves" in paths[1].read_text()


@pytest.mark.parametrize(
    "text", ["", START, f"{END}\n{START}", f"{START}\n{START}\n{END}", f"{START}{END}{END}"]
)
def test_a_readme_without_its_marks_is_refused(text):
    with pytest.raises(InputError, match=r"README\.md"):
        with_claims(text, [with_p(0.01)])


def test_a_claim_without_rows_or_with_few_references_is_refused(ranks):
    with pytest.raises(InputError, match=r"'Rank 32 .*never has no rows of velocity_similarity"):
        finding_of(claim("Rank 32 moves", ours="never"), "mine", Comparison(ranks, rank_rows()))
    with pytest.raises(InputError, match=r"'Rank 1 .* 4 of the 5 references"):
        finding_of(claim(), "mine", Comparison(ranks, rank_rows(4)))
    with pytest.raises(InputError, match="1 of the 5 references"):
        finding_of(claim(), "mine", Comparison(ranks, rank_rows(1)))
    ranks.n = 7
    with pytest.raises(InputError, match="6 of the 7 references"):
        finding(ranks, claim())
    gap = [row for row in rank_rows() if (row.settings["rank"], row.reference) != (1, "r2")]
    with pytest.raises(InputError, match="one and four do not have the same samples"):
        finding_of(claim(), "mine", Comparison(ranks, gap))


def test_more_than_eight_claims_are_refused():
    with pytest.raises(InputError, match="9 claims"):
        adjusted_p([with_p(0.01)] * 9)
