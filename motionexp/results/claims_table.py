"""The tables of README's claims: results/claims in three formats, and README between two marks."""

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results.claims import Finding, Measure, adjusted_p
from motionexp.results.formats import Block, Cell, Grid, Line, Table, ends_text, interval_text, markdown_text
from motionexp.results.latex import to_latex
from motionexp.results.layout import UNTESTED
from motionexp.results.significance import LEVEL

CLAIMS = Path("results/claims")
README = Path("README.md")
START, END = "<!-- claims: `make tables` writes these lines -->", "<!-- end of claims -->"
TITLE = "What README claims"
ABOUT = (
    "Mean [95% bootstrap interval over references], as in the experiments' tables. Differences are paired by"
    " reference, edit and seed."
)
NOTES = (
    "Gap: of the boundary between appearance and motion (shapes/boundary.md).",
    "p: of a difference, Student's t over references, two-sided; of an equality, two one-sided t tests at the"
    " margin in the experiment's file: p is at most 0.05 where the 90% t interval (in claims.md and"
    " claims.csv) lies within the margin; of a gap, the smallest level at which its simultaneous bootstrap"
    " band is above zero. A claim that says several things has the largest p of them.",
    f"Holm: p after Holm's correction for the number of these claims. Shown: at most {LEVEL:g}. Untested"
    " numbers stand beside a claim and are no part of it.",
    "Commits: of the rows; *: the working tree had uncommitted changes.",
)
CSV_COLUMNS = (
    *("claim", "statement", "experiment", "compared", "of", "expected"),
    *("mean", "low", "high", "low_90", "high_90", "n", "references", "p", "claim_p", "holm_p", "verdict"),
)


def write_claims(root: Path, findings: Sequence[Finding]) -> list[Path]:
    """Writes results/claims.md, .tex and .csv and README's table below `root`; returns the files.

    Raises:
        InputError: README lacks the two marks, or there are too many claims.
    """
    texts = {
        ".md": claims_markdown(findings),
        ".tex": to_latex([claims_table(findings)], CLAIMS.name),
        ".csv": claims_csv(findings),
    }
    readme = with_claims((root / README).read_text(encoding="utf-8"), findings)
    paths = [root / CLAIMS.with_suffix(suffix) for suffix in texts] + [root / README]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, [*texts.values(), readme], strict=True):
        write_whole(path, text.encode())
    return paths


def with_claims(readme: str, findings: Sequence[Finding]) -> str:
    """README's text with the table of the claims between its marks.

    Raises:
        InputError: the marks are not there, once each and in order.
    """
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in rest or END in after:
        raise InputError(f"{README}: it needs the line {START} and below it {END}, once each")
    lines = [
        [
            finding.statement,
            _in_readme(finding.measures),
            str(finding.references),
            p_text(adjusted),
            finding.verdict(adjusted),
            f"[{finding.experiment}](experiments/README.md#{finding.experiment})"
            + r"\*" * _is_dirty(finding),
        ]
        for finding, adjusted in zip(findings, adjusted_p(findings), strict=True)
    ]
    header = ["claim", "difference [95% interval]", "n", "p (Holm)", "verdict", "experiment"]
    return f"{before}{START}\n\n{Grid(header, lines, 'l').markdown()}\n\n{END}{after}"


def _in_readme(measures: Sequence[Measure]) -> str:
    """The numbers of a claim by the names of its differences; untested ones in parentheses."""
    parts = []
    for name, of_name in groupby(measures, key=lambda measure: measure.name):
        texts = [
            f"({text})" if measure.expected == UNTESTED else text
            for measure in of_name
            for text in [f"{measure.of} {interval_text(measure.interval, measure.digits)}"]
        ]
        parts.append((f"{name}: " if name else "") + ", ".join(texts))
    return "; ".join(parts)


def _is_dirty(finding: Finding) -> bool:
    return any(commit.endswith("*") for measure in finding.measures for commit in measure.commits)


def _notes(findings: Sequence[Finding]) -> list[str]:
    chosen: dict[str, list[str]] = {}
    for number, finding in enumerate(findings, start=1):
        chosen.setdefault(finding.claim.chosen, []).append(str(number))
    times = (f"Chosen {time}: claims {', '.join(numbers)}." for time, numbers in chosen.items())
    return [*NOTES, *times]


def _expected(measure: Measure) -> str:
    """What a claim says of a difference; of an equality with the interval that decides it."""
    if measure.equal_interval is None:
        return measure.expected
    # One digit more: an end near the margin may not round onto it.
    return f"{measure.expected}: 90% interval {ends_text(*measure.equal_interval, measure.digits + 1)}"


def p_text(p: float) -> str:
    """A p-value with three digits; small ones as a bound."""
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def claims_markdown(findings: Sequence[Finding]) -> str:
    """One row a claim, and the notes."""
    lines = []
    for number, (finding, adjusted) in enumerate(zip(findings, adjusted_p(findings), strict=True), start=1):
        measures = [
            markdown_text(f"{measure.compared}: {measure.of} ")
            + interval_text(measure.interval, measure.digits)
            + markdown_text(f" ({_expected(measure)})")
            for measure in finding.measures
        ]
        commits = sorted({commit for measure in finding.measures for commit in measure.commits})
        lines.append(
            [
                str(number),
                markdown_text(finding.statement),
                f"[{finding.experiment}](../experiments/README.md#{finding.experiment})",
                "<br>".join(measures),
                str(finding.references),
                p_text(finding.p),
                p_text(adjusted),
                markdown_text(finding.verdict(adjusted)),
                markdown_text(", ".join(commits)),
            ]
        )
    header = ["", "claim", "experiment", "difference, and what the claim says of it"]
    header += ["references", "p", "Holm", "verdict", "commits"]
    notes = "\n".join(f"- {note}" for note in [ABOUT, *_notes(findings)])
    return f"## {TITLE}\n\n{Grid(header, lines, 'l').markdown()}\n\n{notes}\n"


def claims_table(findings: Sequence[Finding]) -> Table:
    """One block a claim with a line for each of its differences, for LaTeX."""
    blocks = []
    for finding, adjusted in zip(findings, adjusted_p(findings), strict=True):
        outcome = f"p {p_text(finding.p)}, Holm {p_text(adjusted)}: {finding.verdict(adjusted)}"
        lines = [
            Line(
                [measure.compared, measure.of, measure.expected],
                [Cell("difference", measure.interval, measure.digits)],
                f"{measure.interval.n} ({measure.interval.clusters})",
                "",
                is_difference=True,
            )
            for measure in finding.measures
        ]
        blocks.append(Block(f"{finding.statement}. Experiment {finding.experiment}; {outcome}.", lines))
    labels = ["compared", "of", "the claim says"]
    return Table(TITLE, labels, ["difference"], blocks, _notes(findings), "references")


def claims_csv(findings: Sequence[Finding]) -> str:
    """One line for each difference of each claim, for a reader's own program."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for number, (finding, adjusted) in enumerate(zip(findings, adjusted_p(findings), strict=True), start=1):
        for measure in finding.measures:
            interval = measure.interval
            ends = (interval.mean, interval.low, interval.high, *(measure.equal_interval or ()))
            numbers = [f"{round(value, 8):.8g}" for value in ends]
            numbers += [""] * (5 - len(numbers))  # the 90% interval is that of an equality alone
            p_values = ["" if measure.expected == UNTESTED else f"{measure.p:.4g}"]
            p_values += [f"{finding.p:.4g}", f"{adjusted:.4g}"]
            row = [
                number,
                finding.statement,
                finding.experiment,
                measure.compared,
                measure.of,
                measure.expected,
            ]
            row += [*numbers, interval.n, interval.clusters, *p_values, finding.verdict(adjusted)]
            writer.writerow(row)
    return file.getvalue()
