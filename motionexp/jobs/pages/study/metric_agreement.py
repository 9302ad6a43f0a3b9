"""Which metric agrees with people: rank correlation of every metric with the tallied preference."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motionexp.jobs.pages.report.samples import score_words
from motionexp.jobs.pages.study.answers import Answer, reference_of
from motionexp.jobs.pages.study.forms import FORMS
from motionexp.results.formats import Block, Cell, Line, Table
from motionexp.results.intervals import Interval, mean_interval

WITHIN, BETWEEN, SAME = "within pairs", "between methods", "same pick (%)"
ABOUT = (
    "Spearman's rank correlation of a metric with people's preference; above 0: what people prefer scores"
    " better. Within pairs: of the methods' scores and preferences for one reference and edit, mean over"
    " pairs [95% bootstrap interval over references]; between methods: of their means over pairs; n: pairs"
    " (references)."
)
ABOUT_SAME = (
    "Same pick: how often the method with the best score is the one that a person picked; by chance"
    " {chance}%."
)
UNCORRECTED = (
    "Pairs in which all methods are equal have no correlation. The intervals are not corrected for the number"
    " of metrics."
)
UNSIGNED = "Left out, for neither more nor less of them is better: {names}."


def metric_table(key: Mapping[str, Any], answers: Sequence[Answer]) -> Table | None:
    """A line for each metric, a block for each question; None where the key holds no scores.

    Args:
        key: of the study, with the scores of what was shown.
        answers: the valid ones, at least one.
    """
    form, metrics, words = FORMS[key["form"]], key["metrics"], score_words()
    columns = [WITHIN, BETWEEN, *[SAME] * form.has_picks]
    blocks = []
    for question in form.questions:
        preference = _preference(answers, question.name, form.has_picks, key["methods"])
        lines = []
        for metric, better in metrics.items():
            if better is None:
                continue
            heading, minus = words.get(metric, (metric.replace("_", " "), ""))
            if scores := _scores(key, preference, metric, minus, 1 if better else -1):
                lines.append(_line(key, heading, columns, preference, scores, answers, question.name))
        # The metric that agrees best comes first; one without a correlation last.
        lines.sort(key=_order)
        blocks.append(Block(question.name, lines))
    if not any(block.lines for block in blocks):
        return None
    notes = [ABOUT_SAME.format(chance=f"{100 / len(key['methods']):.0f}")] * form.has_picks + [UNCORRECTED]
    chances = {minus for _, minus in words.values()}
    if unsigned := [name for name, better in metrics.items() if better is None and name not in chances]:
        notes.append(UNSIGNED.format(names=", ".join(unsigned)))
    title = f"Study {key['study']}: which metric agrees with people"
    return Table(title, ["metric"], columns, blocks, notes, "references", ABOUT)


def _order(line: Line) -> float:
    cell = line.cells[0]
    return 2.0 if cell is None or math.isnan(cell.interval.mean) else -cell.interval.mean


def _preference(
    answers: Sequence[Answer], question: str, has_picks: bool, methods: Sequence[str]
) -> dict[str, np.ndarray]:
    """{pair: (methods,) share of picks, or mean rating}."""
    of_pair: dict[str, list[list[float]]] = defaultdict(list)
    for answer in answers:
        if has_picks:
            values = [float(answer.picks[question] == method) for method in methods]
        else:
            values = [float(answer.ratings[question][method]) for method in methods]
        of_pair[answer.pair].append(values)
    return {pair: np.mean(values, axis=0) for pair, values in of_pair.items()}


def _scores(
    key: Mapping[str, Any], pairs: Mapping[str, Any], metric: str, minus: str, sign: int
) -> dict[str, np.ndarray]:
    """{pair: (methods,) scores, higher is better}, of pairs in which every method has a score."""
    scores = {}
    for pair in pairs:
        of_methods = [key["pairs"][pair]["scores"].get(method, {}) for method in key["methods"]]
        names = [metric, *([minus] if minus else [])]
        if all(name in values for values in of_methods for name in names):
            differences = [values[metric] - values.get(minus, 0.0) for values in of_methods]
            scores[pair] = sign * np.array(differences, float)
    return scores


def _line(
    key: Mapping[str, Any],
    heading: str,
    columns: Sequence[str],
    preference: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    answers: Sequence[Answer],
    question: str,
) -> Line:
    pairs = [*scores]
    references = [reference_of(key, pair) for pair in pairs]
    correlations = {pair: rank_correlation(preference[pair], scores[pair]) for pair in pairs}
    told = [pair for pair in pairs if not math.isnan(correlations[pair])]
    within = mean_interval([correlations[pair] for pair in told], [reference_of(key, pair) for pair in told])
    means = (np.mean([table[pair] for pair in pairs], axis=0) for table in (preference, scores))
    between = Interval(rank_correlation(*means), math.nan, math.nan, len(key["methods"]), 0)
    cells: list[Cell | None] = [Cell(WITHIN, within, 2), Cell(BETWEEN, between, 2)]
    if SAME in columns:
        cells.append(Cell(SAME, _same_picks(key, scores, answers, question), 1))
    return Line([heading], cells, f"{len(pairs)} ({len(set(references))})", "")


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of two (n,) arrays, ties at their mean ranks; NaN where one is constant."""
    from scipy.stats import rankdata  # only here: the import takes half a second

    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (first, second)]
    norms = [float(np.linalg.norm(centred)) for centred in ranks]
    return float(ranks[0] @ ranks[1]) / (norms[0] * norms[1]) if min(norms) > 0 else math.nan


def _same_picks(
    key: Mapping[str, Any], scores: Mapping[str, np.ndarray], answers: Sequence[Answer], question: str
) -> Interval:
    """How often a person picked the method of the best score, in percent; of equal scores a share counts."""
    values, references = [], []
    for answer in answers:
        if answer.pair in scores:
            best = scores[answer.pair] == scores[answer.pair].max()
            is_best = best[key["methods"].index(answer.picks[question])]
            values.append(100 * float(is_best) / int(best.sum()))
            references.append(reference_of(key, answer.pair))
    return mean_interval(values, references)
