"""The answers of participants: which of them count, and why the others do not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionexp.config.json_file import read_object
from motionexp.errors import InputError
from motionexp.jobs.pages.study.forms import CHECKED, FORMS
from motionexp.jobs.pages.study.questionnaires import ELSE, REFERENCE, STILL, VERSION

LETTERS = "ABCDEFGH"
"""Of the columns of a page, as participants see them."""
DIVERSITY = "motion diversity"


@dataclass(frozen=True)
class Answer:
    """What a person answered on one page.

    Attributes:
        person: the code of the questionnaire.
        pair: the number of the pair in the key.
        picks: {question: the method that was picked}; empty where methods were rated.
        ratings: {question: {method: 1 to 5}}; empty where a method was picked.
    """

    person: str
    pair: str
    picks: Mapping[str, str]
    ratings: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Rejection:
    """An answer, or all answers of a file, that do not count; `page` is None for all."""

    file: str
    page: int | None
    reason: str


@dataclass(frozen=True)
class Answers:
    """The valid answers of a study, and what was rejected."""

    valid: Sequence[Answer]
    rejected: Sequence[Rejection]


class _Rejected(Exception):
    """A file or a page does not count, for the reason that is the message."""


def read_key(path: Path) -> dict[str, Any]:
    """The key of a study. Raises InputError where it is damaged, or of another version."""
    key = read_object(path)
    try:
        if key["version"] != VERSION:
            raise InputError(f"{path}: of version {key['version']!r:.20}; this program reads {VERSION}")
        _check_key(key)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not the key of a study ({error!r:.80})") from error
    return key


def _check_key(key: Mapping[str, Any]) -> None:
    """Raise LookupError, TypeError or ValueError where an entry is none that `make_key` writes."""
    methods, pairs = key["methods"], key["pairs"]
    if key["form"] not in FORMS or not isinstance(key["study"], str) or not 2 <= len(methods) <= len(LETTERS):
        raise ValueError("form, study or methods")
    if not isinstance(methods, list) or not all(isinstance(method, str) for method in methods):
        raise TypeError("methods")
    if not all(better in (True, False, None) for better in dict(key["metrics"]).values()):
        raise TypeError("metrics")
    for pair in dict(pairs).values():
        _check_pair(pair)
    for page in (page for pages in dict(key["questionnaires"]).values() for page in pages):
        expected = {REFERENCE, ELSE, STILL} if page["check"] else set(methods)
        if page["pair"] not in pairs or not set(page["columns"]) <= expected:
            raise ValueError("pages")
        if len(page["columns"]) != len(methods):
            raise ValueError("columns")


def _check_pair(pair: Mapping[str, Any]) -> None:
    """As `_check_key`, of one pair."""
    if not all(isinstance(pair[name], str) for name in ("suite", "reference", "edit_kind", "caption")):
        raise TypeError("pairs")
    numbers = [value for scores in dict(pair["scores"]).values() for value in dict(scores).values()]
    numbers.append(pair["seconds"])
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers):
        raise TypeError("scores")


def reference_of(key: Mapping[str, Any], pair: str) -> str:
    """The reference of a pair, with its suite."""
    return f"{key['pairs'][pair]['suite']} {key['pairs'][pair]['reference']}"


def read_answers(key: Mapping[str, Any], files: Sequence[Path]) -> Answers:
    """The answers in files, one file a person.

    A file does not count if it cannot be read, is of another study or questionnaire, is a second one of a
    questionnaire (that with the most answered pages counts), or fails an attention check. A page does not
    count if a question has no answer or one that it does not offer, if its videos did not play, or if it was
    open for less time than its video lasts.
    """
    rejected: list[Rejection] = []
    contents: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in files:
        try:
            content = _content(key, path)
        except _Rejected as rejection:
            rejected.append(Rejection(path.name, None, str(rejection)))
            continue
        code = content["code"]
        if code in contents:
            both = sorted([contents[code], (path, content)], key=lambda entry: -_answered(entry[1]))
            contents[code] = both[0]
            rejected.append(Rejection(both[1][0].name, None, f"a second file of questionnaire {code}"))
        else:
            contents[code] = path, content
    valid: list[Answer] = []
    for path, content in contents.values():
        answers, reasons = _of_person(key, content)
        valid += answers
        rejected += [Rejection(path.name, page, reason) for page, reason in reasons]
    return Answers(valid, rejected)


def _content(key: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The content of a file of answers. Raises _Rejected where nothing in it can count."""
    try:
        content = read_object(path)
    except InputError as error:
        raise _Rejected(f"cannot be read: {str(error).removeprefix(str(path)).lstrip(':, ')}") from error
    if content.get("study") != key["study"]:
        raise _Rejected(f"of another study ({content.get('study')!r:.30}, not {key['study']!r:.30})")
    code, pages = content.get("code"), content.get("pages")
    if not isinstance(code, str) or code not in key["questionnaires"]:
        raise _Rejected(f"the study has no questionnaire {code!r:.30}")
    if not isinstance(pages, list) or len(pages) != len(key["questionnaires"][code]):
        raise _Rejected(f"it has not the {len(key['questionnaires'][code])} pages of the questionnaire")
    return content


def _answered(content: Mapping[str, Any]) -> int:
    return sum(bool(isinstance(page, dict) and page.get("answers")) for page in content["pages"])


def _of_person(
    key: Mapping[str, Any], content: Mapping[str, Any]
) -> tuple[list[Answer], list[tuple[int | None, str]]]:
    """The valid answers of a person, and (page, reason) of the others."""
    valid, reasons = list[Answer](), list[tuple[int | None, str]]()
    failed = []
    pages = key["questionnaires"][content["code"]]
    for number, (page, stored) in enumerate(zip(pages, content["pages"], strict=True), start=1):
        try:
            choices = dict(_choices(key, page, stored))
        except _Rejected as rejection:
            if page["check"]:
                failed.append(f"the attention check on page {number} does not count: {rejection}")
            else:
                reasons.append((number, str(rejection)))
            continue
        if page["check"]:
            failed += [f"failed the attention check on page {number}: {why}" for why in _faults(key, choices)]
        elif FORMS[key["form"]].has_picks:
            valid.append(Answer(content["code"], page["pair"], choices, {}))
        else:
            valid.append(Answer(content["code"], page["pair"], {}, choices))
    if failed:
        return [], [(None, failed[0])]
    return valid, reasons


def _choices(key: Mapping[str, Any], page: Mapping[str, Any], stored: Any) -> Iterator[tuple[str, Any]]:
    """(question, its answer) of a page: a column's content, or {a column's content: its rating}.

    Of an attention check the contents of several columns are equal: their highest rating counts.
    """
    answers = stored.get("answers") if isinstance(stored, dict) else None
    if not isinstance(answers, dict):
        raise _Rejected("damaged: it has no answers")
    if stored.get("broken") is True:
        raise _Rejected("a video did not play")
    columns, form = page["columns"], FORMS[key["form"]]
    for question in form.questions:
        answer = answers.get(question.name)
        if answer is None or answer == {}:
            raise _Rejected(f"no answer to {question.name}")
        if form.has_picks:
            yield question.name, columns[_column(answer, question.name, len(columns))]
        else:
            yield question.name, _ratings(answer, question.name, columns, len(form.levels))
    seconds, least = stored.get("seconds"), key["pairs"][page["pair"]]["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise _Rejected("damaged: it has no time")
    if seconds < least:
        raise _Rejected(f"open for {seconds:g} s, less than the {least:g} s of its video")


def _ratings(answer: Any, question: str, columns: Sequence[str], levels: int) -> dict[str, int]:
    if not isinstance(answer, dict) or len(answer) < len(columns):
        raise _Rejected(f"not all videos are rated by {question}")
    ratings: dict[str, int] = {}
    for letter, level in answer.items():
        if type(level) is not int or not 1 <= level <= levels:
            raise _Rejected(f"{question} offers no rating {level!r:.20}")
        column = columns[_column(letter, question, len(columns))]
        ratings[column] = max(level, ratings.get(column, 0))
    return ratings


def _column(letter: Any, question: str, count: int) -> int:
    if not isinstance(letter, str) or letter not in [*LETTERS[:count]]:
        raise _Rejected(f"{question} offers no {letter!r:.20}")
    return LETTERS.index(letter)


def _faults(key: Mapping[str, Any], choices: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the answers to an attention check, in words."""
    answer = choices[CHECKED[key["form"]]]
    if FORMS[key["form"]].has_picks:
        if answer != REFERENCE:
            yield f"picked {answer} in place of the reference itself"
        if choices[DIVERSITY] != ELSE:
            yield f"picked {choices[DIVERSITY]} as the one whose videos differ"
    elif answer[REFERENCE] <= answer[STILL]:
        yield "rated the motion of a still at least as high as that of the reference itself"
