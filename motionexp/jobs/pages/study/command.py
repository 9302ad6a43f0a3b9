"""`python run.py study` and `python run.py study tally`. No torch."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from motionexp.config.study import load_study
from motionexp.errors import InputError
from motionexp.files import user_path, write_whole
from motionexp.jobs.machine import clear_disk_errors
from motionexp.jobs.pages.study.answers import Answers, Rejection, read_answers, read_key
from motionexp.jobs.pages.study.forms import FORMS
from motionexp.jobs.pages.study.metric_agreement import metric_table
from motionexp.jobs.pages.study.questionnaires import draw_plan
from motionexp.jobs.pages.study.samples import find_candidates
from motionexp.jobs.pages.study.site import ANSWERS, KEY, LINKS, SITE, write_study
from motionexp.jobs.pages.study.tally import tally_tables
from motionexp.results.formats import Grid, amount, markdown_text, printable, to_csv, to_markdown
from motionexp.results.terminal import print_table

TALLY = "tally"
MOST_SHOWN = 20
"""Rejections on the terminal; the file has all."""


def study(words: Sequence[str]) -> None:
    """`python run.py study folder=NEW ...`, or `python run.py study tally ANSWERS...`.

    Raises:
        InputError: a setting is wrong, the samples make no study, or no answer is valid.
    """
    if words and words[0] == TALLY:
        _tally(words[1:])
        return
    cfg, select = load_study(words)
    form = FORMS[cfg.form]
    candidates = find_candidates(
        user_path(cfg.output), select, cfg.by, base_model=cfg.base_model, outputs=form.outputs
    )
    plan = draw_plan(cfg, candidates, form.outputs)
    with clear_disk_errors(str(cfg.folder)):
        folder = write_study(cfg, candidates, plan, words)
    for line in (
        f"{cfg.people} questionnaires of {cfg.pages + cfg.checks} pages, from {len(plan.seeds)} pairs of a"
        f" reference with an edit; {amount(form.outputs, 'sample')} of each method:",
        *(f"    {method}" for method in candidates.methods),
        f"participants get {folder / SITE}/ and a link each: {folder / LINKS}",
        f"keep {folder / KEY} to yourself: it says which method is which",
        f"then: python run.py study tally {folder / ANSWERS}/*.json",
    ):
        print(printable(line))


def _tally(words: Sequence[str]) -> None:
    """Print the tally of files of answers, and write it beside the study's key."""
    keys = [word.removeprefix("key=") for word in words if word.startswith("key=")]
    files = [user_path(word) for word in words if not word.startswith("key=")]
    if not files:
        raise InputError("study tally: name the files with answers, as in study tally STUDY/answers/*.json")
    if missing := next((file for file in files if not file.is_file()), None):
        raise InputError(f"study tally: {missing}: there is no such file")
    path = _key_file(keys, files)
    key = read_key(path)
    answers = read_answers(key, files)
    console = Console()
    if not answers.valid:
        _print_rejected(console, answers.rejected)
        raise InputError("study tally: no answer is valid; the reasons are above")
    agreeing = metric_table(key, answers.valid)
    tables = [*tally_tables(key, answers), *([agreeing] if agreeing else [])]
    for table in tables:
        print_table(console, table)
        console.print()
    _print_rejected(console, answers.rejected)
    text = "\n".join([*map(to_markdown, tables), _rejected_markdown(answers)])
    with clear_disk_errors(str(path.parent)):
        write_whole(path.with_name("tally.md"), text.encode())
        write_whole(path.with_name("tally.csv"), to_csv(tables).encode())
    console.print(Text(printable(f"tally: {path.with_name('tally.md')} and .csv")), soft_wrap=True)


def _key_file(keys: Sequence[str], files: Sequence[Path]) -> Path:
    """The key of the study: what `key=` says, or that beside the folder of the answers."""
    if keys:
        return user_path(keys[0])
    folder = files[0].resolve().parent
    for candidate in (folder / KEY, folder.parent / KEY):
        if candidate.is_file():
            return candidate
    raise InputError(
        f"study tally: {KEY} is neither in {folder} nor above it: put the answers into the study's"
        f" {ANSWERS}/, or give key=STUDY/{KEY}"
    )


def _lines(rejected: Sequence[Rejection]) -> list[list[str]]:
    return [
        [rejection.file, "all" if rejection.page is None else str(rejection.page), rejection.reason]
        for rejection in rejected
    ]


def _print_rejected(console: Console, rejected: Sequence[Rejection]) -> None:
    for file, page, reason in _lines(rejected)[:MOST_SHOWN]:
        console.print(Text(printable(f"rejected: {file}, page {page}: {reason}")), soft_wrap=True)
    if len(rejected) > MOST_SHOWN:
        console.print(f"rejected: and {len(rejected) - MOST_SHOWN} more, in the file")


def _rejected_markdown(answers: Answers) -> str:
    if not answers.rejected:
        return "## Rejected\n\nNothing.\n"
    lines = [[*map(markdown_text, line)] for line in _lines(answers.rejected)]
    return f"## Rejected\n\n{Grid(['file', 'page', 'reason'], lines, 'lrl').markdown()}\n"
