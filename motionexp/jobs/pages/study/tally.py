"""The tally of a study: the form of the second paper's Table 3, agreement between people, and rejections."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motionexp.jobs.pages.study.agreement import krippendorff_alpha
from motionexp.jobs.pages.study.answers import Answer, Answers, reference_of
from motionexp.jobs.pages.study.forms import FORMS
from motionexp.jobs.pages.study.rates import design_effect, rate_interval, rating_interval
from motionexp.results.formats import Block, Cell, Line, Table, interval_text
from motionexp.results.intervals import Interval

PEOPLE = "people"
ABOUT_RATES = (
    "Share of the valid answers that pick the method [95% interval: Wilson's at the effective number of"
    " answers, which share people and references]; n: answers (people)."
)
ABOUT_RATINGS = (
    "Mean rating from 1 to {levels} [95% interval by two-way clusters, people and references]; n: ratings"
    " (people)."
)
ABOUT_LEVELS = "Share of the ratings in percent; n: ratings (people)."
NOTHING = Interval(math.nan, math.nan, math.nan, 0, 0)


def tally_tables(key: Mapping[str, Any], answers: Answers) -> list[Table]:
    """The tables of a tally: picks or ratings, and of ratings also how often each was given.

    Args:
        key: of the study.
        answers: with at least one valid one.
    """
    form, notes = FORMS[key["form"]], _notes(key, answers)
    if form.has_picks:
        return [_picks(key, answers.valid, notes)]
    return [_ratings(key, answers.valid, notes), _levels(key, answers.valid)]


def _picks(key: Mapping[str, Any], answers: Sequence[Answer], notes: list[str]) -> Table:
    """Top-pick rates: a line for each method, a column for each question."""
    people, references = (
        [answer.person for answer in answers],
        [reference_of(key, answer.pair) for answer in answers],
    )
    questions = [question.name for question in FORMS[key["form"]].questions]
    cells: dict[str, list[Cell | None]] = {method: [] for method in key["methods"]}
    for question in questions:
        chosen = {
            method: np.array([answer.picks[question] == method for answer in answers], float)
            for method in key["methods"]
        }
        effects = {method: design_effect(values, people, references) for method, values in chosen.items()}
        # A method that nobody picks, or everybody, says nothing of how answers cluster: the others do.
        largest = max((effect for effect in effects.values() if not math.isnan(effect)), default=1.0)
        for method, values in chosen.items():
            effect = largest if math.isnan(effects[method]) else effects[method]
            cells[method].append(Cell(question, rate_interval(values, people, references, effect), 1))
    n = f"{len(answers)} ({len(set(people))})"
    lines = [Line([method], cells[method], n, "") for method in key["methods"]]
    headings = [f"{question} (%) ↑" for question in questions]
    blocks = [Block("top-pick rates", lines)]
    return Table(f"Study {key['study']}", ["method"], headings, blocks, notes, PEOPLE, ABOUT_RATES)


def _ratings(key: Mapping[str, Any], answers: Sequence[Answer], notes: list[str]) -> Table:
    """Mean ratings: a line for each method, a column for each question."""
    people, references, form = (
        [a.person for a in answers],
        [reference_of(key, answer.pair) for answer in answers],
        FORMS[key["form"]],
    )
    lines = []
    for method in key["methods"]:
        cells: list[Cell | None] = []
        for question in form.questions:
            values = np.array([answer.ratings[question.name][method] for answer in answers], float)
            cells.append(
                Cell(question.name, rating_interval(values, people, references, len(form.levels)), 2)
            )
        lines.append(Line([method], cells, f"{len(answers)} ({len(set(people))})", ""))
    headings = [f"{question.name} ↑" for question in form.questions]
    about = ABOUT_RATINGS.format(levels=len(form.levels))
    blocks = [Block("mean ratings", lines)]
    return Table(f"Study {key['study']}", ["method"], headings, blocks, notes, PEOPLE, about)


def _levels(key: Mapping[str, Any], answers: Sequence[Answer]) -> Table:
    """How often each rating was given, a block for each question: the form of DiTFlow's Figure 6."""
    form, blocks = FORMS[key["form"]], []
    n = f"{len(answers)} ({len({answer.person for answer in answers})})"
    for question in form.questions:
        lines = []
        for method in key["methods"]:
            counts = Counter(answer.ratings[question.name][method] for answer in answers)
            shares = [100 * counts[level] / len(answers) for level in range(1, len(form.levels) + 1)]
            cells: list[Cell | None] = [
                Cell(level, Interval(share, math.nan, math.nan, len(answers), 0), 1)
                for level, share in zip(form.levels, shares, strict=True)
            ]
            lines.append(Line([method], cells, n, ""))
        blocks.append(Block(question.name, lines))
    title = f"Study {key['study']}: ratings"
    return Table(title, ["method"], [*form.levels], blocks, [], PEOPLE, ABOUT_LEVELS)


def _notes(key: Mapping[str, Any], answers: Answers) -> list[str]:
    """Agreement between people, and how many answers were rejected for which reason."""
    notes = []
    for question, interval in agreement(key, answers.valid).items():
        if math.isnan(interval.mean):
            why = "no two people answered the same page, or all answers are equal"
            notes.append(f"Krippendorff's alpha of {question}: none ({why}).")
            continue
        about = f"{interval.n} answers to {interval.clusters} questions that two or more people answered"
        notes.append(f"Krippendorff's alpha of {question}: {interval_text(interval, 2)}; {about}.")
    reasons = Counter(_kind(rejection.reason, rejection.page) for rejection in answers.rejected)
    notes += [f"Rejected: {count} {reason}." for reason, count in sorted(reasons.items())]
    notes.append(f"The questions are those of {FORMS[key['form']].source}, in other words.")
    return notes


def _kind(reason: str, page: int | None) -> str:
    what = "files" if page is None else "answers"
    return f"{what} ({reason.partition(' (')[0].partition(':')[0]})"


def agreement(key: Mapping[str, Any], answers: Sequence[Answer]) -> dict[str, Interval]:
    """{question: Krippendorff's alpha}: of picks nominal, by pair; of ratings ordinal, by pair and method."""
    form = FORMS[key["form"]]
    result = {}
    for question in form.questions:
        units: dict[tuple[str, str], list[int]] = defaultdict(list)
        for answer in answers:
            if form.has_picks:
                units[answer.pair, ""].append(key["methods"].index(answer.picks[question.name]))
            else:
                for method, level in answer.ratings[question.name].items():
                    units[answer.pair, method].append(level - 1)
        values = len(form.levels) or len(key["methods"])
        result[question.name] = krippendorff_alpha(list(units.values()), values, ordinal=not form.has_picks)
    return result
