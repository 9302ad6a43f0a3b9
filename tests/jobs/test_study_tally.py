"""`study tally`: rates, agreement, rejections and metrics, with simulated people of known preference."""

import json
import math
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr, t

from motionexp.cli import main
from motionexp.errors import InputError
from motionexp.jobs.pages.study.agreement import krippendorff_alpha
from motionexp.jobs.pages.study.answers import read_answers, read_key
from motionexp.jobs.pages.study.command import study
from motionexp.jobs.pages.study.metric_agreement import metric_table, rank_correlation
from motionexp.jobs.pages.study.rates import clustered_variance, design_effect, rate_interval
from motionexp.jobs.pages.study.tally import agreement, tally_tables
from tests.support.made_study import answered, people_answer, write_samples

PREFERENCE = {
    "motion fidelity": {"tau=0": 0.15, "tau=400": 0.25, "tau=700": 0.6},
    "motion diversity": {"tau=0": 1.0, "tau=400": 0.0, "tau=700": 0.0},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with samples, a study of 20 people in `picks` and one of 4 people in `ditflow`."""
    root = tmp_path_factory.mktemp("tally")
    output = write_samples(root / "outputs")
    study([f"folder={root / 'picks'}", f"output={output}", "people=20", "pages=8"])
    study([f"folder={root / 'ditflow'}", f"output={output}", "people=4", "pages=4", "form=ditflow"])
    return root


def key_in(root: Path, form: str = "picks") -> dict:
    return read_key(root / form / "key.json")


def file_of(root: Path, tmp_path: Path, name: str = "a.json", number: int = 0, **changes) -> Path:
    """The file of an attentive person, who always picks the last method, with some changed entries."""
    key = key_in(root)
    code = [*key["questionnaires"]][number]
    content = answered(key, code, lambda question, page: "tau=700") | changes
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


# rates


def test_rates_of_known_preference_have_the_form_of_table_3(root, tmp_path, capsys):
    key = key_in(root)
    files = people_answer(tmp_path, key, PREFERENCE)
    study(["tally", f"key={root / 'picks' / 'key.json'}", *map(str, files)])
    answers = read_answers(key, files)
    assert (len(answers.valid), answers.rejected) == (160, [])
    (table,) = tally_tables(key, answers)
    assert [line.labels[0] for line in table.lines] == ["tau=0", "tau=400", "tau=700"]
    assert table.columns == ["motion fidelity (%) ↑", "motion diversity (%) ↑"]
    for column, question in enumerate(PREFERENCE):
        intervals = [line.cells[column].interval for line in table.lines]
        counts = Counter(answer.picks[question] for answer in answers.valid)
        assert [interval.mean for interval in intervals] == pytest.approx(
            [100 * counts[method] / 160 for method in key["methods"]]
        )
        assert sum(interval.mean for interval in intervals) == pytest.approx(100)
        for interval, rate in zip(intervals, PREFERENCE[question].values(), strict=True):
            assert interval.low - 1e-9 <= 100 * rate <= interval.high + 1e-9
    # Nobody picked it, and its interval does not end there: of four references the quantile is Student's.
    never = [*table.lines][1].cells[1].interval
    assert (never.mean, never.low) == pytest.approx((0, 0))
    z = t.ppf(0.975, 3)
    assert never.high == pytest.approx(100 * z**2 / (160 + z**2))
    written = (root / "picks" / "tally.md").read_text()
    assert "| tau=700 |" in written
    assert "Krippendorff's alpha of motion fidelity" in capsys.readouterr().out


def test_an_interval_of_independent_answers_is_wilsons():
    # Every person and every reference once: nothing is shared, but for the quantile of few clusters.
    chosen = np.array([1.0] * 30 + [0.0] * 70)
    names = [str(number) for number in range(100)]
    effect = design_effect(chosen, names, names)
    assert effect == pytest.approx(100 / 99)
    interval = rate_interval(chosen, names, names, 1.0)
    wilson = binomtest(30, 100).proportion_ci(method="wilson")
    assert (interval.low / 100, interval.high / 100) == pytest.approx((wilson.low, wilson.high), abs=2e-3)


def test_the_variance_of_a_mean_is_that_of_two_way_clusters():
    generator = np.random.default_rng(0)
    people, references = generator.integers(0, 5, 40), generator.integers(0, 7, 40)
    # Where people and references differ, the sum of both is the largest.
    values = (
        generator.normal(size=40) + generator.normal(size=5)[people] + generator.normal(size=7)[references]
    )
    residuals = values - values.mean()

    def slow(same) -> float:
        """The double sum over all pairs of answers in one cluster, as in the paper's definition."""
        return sum(
            residuals[i] * residuals[j] for i in range(40) for j in range(40) if same(i, j)
        ) / 40**2  # fmt: skip

    of_people = slow(lambda i, j: people[i] == people[j]) * 5 / 4
    of_references = slow(lambda i, j: references[i] == references[j]) * 7 / 6
    both = {*zip(people, references, strict=True)}
    of_both = slow(lambda i, j: (people[i], references[i]) == (people[j], references[j]))
    of_both *= len(both) / (len(both) - 1)
    expected = of_people + of_references - of_both
    assert expected > max(of_people, of_references)
    assert clustered_variance(values, people, references) == pytest.approx(expected)
    assert clustered_variance(values, people, ["one"] * 40) == pytest.approx(of_people)
    assert math.isnan(clustered_variance(values, ["one"] * 40, ["one"] * 40))


def test_intervals_contain_the_true_rate_where_people_and_references_differ():
    """Of 400 studies of 20 people x 20 references, half a questionnaire each; nominal 95%."""
    generator, inside = np.random.default_rng(1), {"ours": 0, "independent": 0}
    for _ in range(400):
        of_people, of_references = generator.normal(0, 0.8, 20), generator.normal(0, 0.8, 20)
        shown = np.array([generator.permutation(20)[:10] for _ in range(20)])  # (20, 10)
        logits = of_people[:, None] + of_references[shown]
        chosen = (generator.random((20, 10)) < 1 / (1 + np.exp(-logits))).astype(float).ravel()
        people, references = np.repeat(np.arange(20), 10), shown.ravel()
        effect = design_effect(chosen, people, references)
        for name, value in (("ours", effect), ("independent", 1.0)):
            interval = rate_interval(chosen, people, references, value)
            inside[name] += interval.low <= 50 <= interval.high
    assert 0.92 <= inside["ours"] / 400 <= 0.99
    assert inside["independent"] / 400 < 0.85, "answers of one person are not independent"


# agreement

MISSING = None
# K. Krippendorff 2011: four observers, twelve units; alpha nominal 0.743, ordinal 0.815.
PUBLISHED = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, MISSING, MISSING, MISSING),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, MISSING, 3),
    (MISSING, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, MISSING),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, MISSING),
)


def units_of(table) -> list[list[int]]:
    return [[value - 1 for value in unit if value is not MISSING] for unit in zip(*table, strict=True)]


@pytest.mark.parametrize(("ordinal", "published"), [(False, 0.743), (True, 0.815)])
def test_alpha_is_the_published_one(ordinal, published):
    interval = krippendorff_alpha(units_of(PUBLISHED), 5, ordinal=ordinal)
    assert round(interval.mean, 3) == published
    assert interval.low < published < interval.high <= 1
    assert (interval.n, interval.clusters) == (40, 11)


def slow_alpha(units: list[list[int]], *, ordinal: bool) -> float:
    """1 - observed / expected disagreement, over all pairs of answers, without a matrix."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]

    def distance(a: int, b: int) -> float:
        if not ordinal:
            return float(a != b)
        low, high = sorted((a, b))
        between = sum(low <= value <= high for value in values)
        return (between - (values.count(a) + values.count(b)) / 2) ** 2

    observed = sum(
        distance(a, b) / (len(unit) - 1) for unit in units for a, b in permutations(unit, 2)
    ) / len(values)  # fmt: skip
    expected = sum(distance(a, b) for a, b in permutations(values, 2)) / (len(values) * (len(values) - 1))
    return 1 - observed / expected


@pytest.mark.parametrize("ordinal", [False, True])
def test_alpha_equals_the_slow_version(ordinal):
    generator = np.random.default_rng(2)
    for _ in range(10):
        units = [[*generator.integers(0, 4, generator.integers(0, 5))] for _ in range(12)]
        fast = krippendorff_alpha(units, 4, ordinal=ordinal).mean
        assert fast == pytest.approx(slow_alpha(units, ordinal=ordinal))


def test_people_who_agree_have_one_and_people_who_draw_lots_have_none(root, tmp_path):
    key = key_in(root)
    certain = {question: {"tau=0": 0, "tau=400": 0, "tau=700": 1.0} for question in PREFERENCE}
    (tmp_path / "one").mkdir()
    answers = read_answers(key, people_answer(tmp_path / "one", key, certain))
    assert math.isnan(agreement(key, answers.valid)["motion fidelity"].mean), "only one value occurs"
    lots = {question: dict.fromkeys(key["methods"], 1 / 3) for question in PREFERENCE}
    (tmp_path / "lots").mkdir()
    answers = read_answers(key, people_answer(tmp_path / "lots", key, lots))
    interval = agreement(key, answers.valid)["motion fidelity"]
    assert interval.low < 0 < interval.high < 0.2

    def by_pair(question, page):
        return key["methods"][int(page["pair"]) % 3]

    files = []
    for code in [*key["questionnaires"]][:10]:
        files.append(tmp_path / f"{code}.json")
        files[-1].write_text(json.dumps(answered(key, code, by_pair)))
    interval = agreement(key, read_answers(key, files).valid)["motion fidelity"]
    assert (interval.mean, interval.low) == (1, 1)


# rejections


def test_every_rejection_has_its_reason(root, tmp_path):
    key = key_in(root)
    pages = next(iter(key["questionnaires"].values()))
    check = next(place for place, page in enumerate(pages) if page["check"])
    normal = [place for place, page in enumerate(pages) if not page["check"]]
    path = file_of(root, tmp_path)
    content = json.loads(path.read_text())
    changed = [content["pages"][place] for place in normal]
    del changed[0]["answers"]["motion diversity"]
    changed[1]["seconds"] = 1.9
    changed[2]["broken"] = True
    changed[3]["answers"]["motion fidelity"] = "D"
    content["pages"][normal[4]] = 7
    path.write_text(json.dumps(content))
    answers = read_answers(key, [path])
    assert [(rejection.page, rejection.reason) for rejection in answers.rejected] == [
        (normal[0] + 1, "no answer to motion diversity"),
        (normal[1] + 1, "open for 1.9 s, less than the 2 s of its video"),
        (normal[2] + 1, "a video did not play"),
        (normal[3] + 1, "motion fidelity offers no 'D'"),
        (normal[4] + 1, "damaged: it has no answers"),
    ]
    assert len(answers.valid) == 3
    still = "ABC"[pages[check]["columns"].index("a still")]
    for answer, reason in (
        ({"motion fidelity": still, "motion diversity": still}, "failed the attention check"),
        ({}, "does not count: no answer"),
    ):
        content["pages"][check]["answers"] = answer
        path.write_text(json.dumps(content))
        answers = read_answers(key, [path])
        assert answers.valid == []
        assert reason in answers.rejected[0].reason
        assert answers.rejected[0].page is None


def test_files_that_are_none_of_the_study_do_not_count(root, tmp_path):
    files = [
        file_of(root, tmp_path, "good.json"),
        file_of(root, tmp_path, "again.json"),
        file_of(root, tmp_path, "other.json", study="0123"),
        file_of(root, tmp_path, "unknown.json", code="999-abcd"),
        file_of(root, tmp_path, "short.json", number=1, pages=[]),
        tmp_path / "text.json",
        tmp_path / "list.json",
    ]
    files[-2].write_text("no json")
    files[-1].write_text("[]")
    answers = read_answers(key_in(root), files)
    assert {answer.person for answer in answers.valid} == {next(iter(key_in(root)["questionnaires"]))}
    reasons = {rejection.file: rejection.reason for rejection in answers.rejected}
    assert reasons.keys() == {file.name for file in files} - {"good.json"}
    for name, reason in {
        "again.json": "a second file of questionnaire",
        "other.json": "of another study",
        "unknown.json": "no questionnaire",
        "short.json": "it has not the 9 pages",
        "text.json": "cannot be read",
        "list.json": "cannot be read",
    }.items():
        assert reason in reasons[name]


def test_of_two_files_of_a_person_that_with_more_answers_counts(root, tmp_path):
    first, second = file_of(root, tmp_path, "first.json"), file_of(root, tmp_path, "second.json")
    content = json.loads(first.read_text())
    place = next(
        p for p, page in enumerate(key_in(root)["questionnaires"][content["code"]]) if not page["check"]
    )
    content["pages"][place]["answers"] = {}
    first.write_text(json.dumps(content))
    answers = read_answers(key_in(root), [first, second])
    assert len(answers.valid) == 8
    assert [rejection.file for rejection in answers.rejected] == ["first.json"]


def test_a_tally_without_a_valid_answer_or_a_key_is_an_error(root, tmp_path, capsys):
    wrong = file_of(root, tmp_path, study="0123")
    key = f"key={root / 'picks' / 'key.json'}"
    with pytest.raises(InputError, match="no answer is valid"):
        study(["tally", key, str(wrong)])
    assert "rejected: a.json, page all: of another study" in capsys.readouterr().out
    for words, named in (
        (["tally"], "name the files"),
        (["tally", str(tmp_path / "none.json")], "no such file"),
        (["tally", str(wrong)], "key.json is neither"),
        (["tally", f"key={wrong}", str(wrong)], "not the key of a study"),
    ):
        with pytest.raises(InputError, match=named):
            study(words)


def test_answers_beside_the_key_need_no_key_and_files_have_any_name(root, capsys):
    folder = root / "picks" / "answers"
    paths = [file_of(root, folder, name, number) for number, name in enumerate(("x@1=a.json", "x@1=b.json"))]
    assert main(["study", "tally", *map(str, paths)]) == 0
    assert "tau=700" in capsys.readouterr().out


# ratings and metrics


def test_ratings_have_means_shares_and_ordinal_agreement(root, tmp_path):
    key, generator, files = key_in(root, "ditflow"), np.random.default_rng(3), []
    level = {"tau=0": 1, "tau=400": 3, "tau=700": 4}
    for code in key["questionnaires"]:
        content = answered(
            key, code, lambda question, page: {m: level[m] + int(generator.integers(0, 2)) for m in level}
        )
        files.append(tmp_path / f"{code}.json")
        files[-1].write_text(json.dumps(content))
    answers = read_answers(key, files)
    assert len(answers.valid) == 16
    means, shares = tally_tables(key, answers)
    for line in means.lines:
        ratings = [answer.ratings["motion adherence"][line.labels[0]] for answer in answers.valid]
        interval = line.cells[0].interval
        assert interval.mean == pytest.approx(np.mean(ratings))
        assert 1 <= interval.low <= interval.mean <= interval.high <= 5
    assert [block.title for block in shares.blocks] == ["motion adherence", "prompt adherence"]
    assert all(sum(cell.interval.mean for cell in line.cells) == pytest.approx(100) for line in shares.lines)
    assert agreement(key, answers.valid)["motion adherence"].mean > 0.7


def test_a_still_that_is_rated_like_the_reference_fails_the_check(root, tmp_path):
    key = key_in(root, "ditflow")
    code = next(iter(key["questionnaires"]))
    content = answered(key, code, lambda question, page: dict.fromkeys(page["columns"], 3))
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert len(read_answers(key, [path]).valid) == 4
    for page, stored in zip(key["questionnaires"][code], content["pages"], strict=True):
        if page["check"]:
            stored["answers"]["motion adherence"] = dict.fromkeys("ABC", 5)
    path.write_text(json.dumps(content))
    answers = read_answers(key, [path])
    assert answers.valid == []
    assert "a still" in answers.rejected[0].reason


def test_a_rank_correlation_is_scipys():
    generator = np.random.default_rng(4)
    for _ in range(5):
        first, second = generator.integers(0, 3, 6).astype(float), generator.normal(size=6)
        assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert math.isnan(rank_correlation(np.ones(3), np.arange(3.0)))


def with_chance(key, chance):
    """The key of a study whose samples have a chance level of leakage, of their leakage."""
    pairs = {}
    for name, pair in key["pairs"].items():
        scores = {
            method: {**values, "nuisance_chance": chance(values["nuisance_similarity"])}
            for method, values in pair["scores"].items()
        }
        pairs[name] = {**pair, "scores": scores}
    return {**key, "pairs": pairs, "metrics": {**key["metrics"], "nuisance_chance": None}}


def test_the_metric_that_people_follow_agrees_with_them(root, tmp_path):
    key = with_chance(key_in(root), lambda _: 0.1)
    answers = read_answers(key, people_answer(tmp_path, key, PREFERENCE))
    table = metric_table(key, answers.valid)
    fidelity, diversity = ({line.labels[0]: line for line in block.lines} for block in table.blocks)
    for metric in ("motion fidelity", "background leakage"):  # of which more, and less, is better
        within, between, same = (cell.interval for cell in fidelity[metric].cells)
        assert within.low > 0.3
        assert between.mean == pytest.approx(1)
        picked = Counter(answer.picks["motion fidelity"] for answer in answers.valid)
        assert same.mean == pytest.approx(100 * picked["tau=700"] / 160, abs=2)
        assert diversity[metric].cells[0].interval.mean < -0.5
    assert math.isnan(fidelity["frame consistency"].cells[0].interval.mean), "all methods score equally"
    assert fidelity["frame consistency"].cells[2].interval.mean == pytest.approx(100 / 3)
    assert [*fidelity][-1] == "frame consistency"
    assert "foreground_share" not in fidelity
    assert any("foreground_share" in note for note in table.notes)
    assert not any("nuisance_chance" in note for note in table.notes)
    # Leakage is above chance: where chance is all of it, all methods leak equally.
    table = metric_table(with_chance(key, lambda leakage: leakage), answers.valid)
    (line,) = [line for line in table.blocks[0].lines if line.labels == ["background leakage"]]
    assert math.isnan(line.cells[0].interval.mean)
    bare = {**key, "pairs": {name: {**pair, "scores": {}} for name, pair in key["pairs"].items()}}
    assert metric_table(bare, answers.valid) is None
