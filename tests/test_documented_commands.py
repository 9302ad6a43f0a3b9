"""Every command of README and docs/ is accepted as it stands there, with stubs for jobs; the short ones run.

A command that needs what a reader alone has (an adapter, a folder of videos) is accepted as far as the error
that names it: all its words are read by then.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from motionexp import cli
from motionexp.cli import main
from motionexp.config import launcher, ranks
from motionexp.config.command_line import COMMANDS
from motionexp.config.commands import DashboardConfig, UiConfig, command_settings
from motionexp.config.launcher import GROUP, split_launcher
from motionexp.data.videos import write_mp4, write_png
from tests.support import made_output
from tests.support.stub_jobs import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
START = "python run.py"
# What `...` stands for in a command of a model of real videos.
MORE = ("video=my.mp4", "caption=a dog is running", 'edits=["a cat is running"]')
# Names of what a reader has and this repository has not.
OF_READERS = (
    *("DIR", "FOLDER", "/ID", "outputs/", "lora.safetensors", "path/to", "their", "model=mine"),
    *("study/answers", "first/outputs", "outputs/sweeps"),
)
MISSING = re.compile(
    "no such (file|folder|rows)|has no JPEGImages|nothing in .* has|no edit .* has 2|needs the extra"
)
"""In the error about a file of a reader, rows or samples that the made results have not, or a package."""
NOT_CHECKED = {
    ("predict", "model=NAME", "data=folder", "data.path=DIR"): "NAME is the reader's model",
    ("probe=tampering", "model=NAME"): "NAME is the reader's model",
    ("-m", "model=NAME", "tau=500,600,700,800"): "NAME is the reader's model",
    ("dry_run=true", "method=NAME"): "NAME is any method",
    ("list", "references", "data=..."): "stands for any suite",
    ("COMMAND", "--help"): "COMMAND is any command; tests/test_help.py has them all",
    ("score",): "names the command alone",
    ("submission",): "names the command alone",
    ("export",): "names the command alone",
    ("|", "head"): "is about the shell",
    (
        "probe=tampering",
        "precision=fp32",
        "model=tiny_latte",
        "references=[$REFERENCES]",
    ): "a shell's variable",
}
"""Commands that no test reads, each with the reason."""
# Commands that take no longer than seconds, on the results of earlier runs.
SHORT = (
    "--help",
    "status",
    "status output=outputs",
    "status --watch",
    "table output=outputs by=tau",
    "table output=outputs by=tau,rank",
    "list runs output=outputs",
    "report output=outputs",
    "report output=outputs folder=my-report",
)
# Programs that end within seconds, or name the file that a reader has and this repository has not.
PROGRAMS = ("motionexp.results.publish", "motionexp.scripts.probe_tables", "motionexp.scripts.probe_figures")

pytestmark = pytest.mark.usefixtures("quiet")


def texts() -> Iterator[tuple[str, bool]]:
    """(line of a page that is code, or words in backquotes; whether it is a line)."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        yield from ((line.strip(), True) for line in text.splitlines() if "|" not in line)
        prose = re.sub(r"^```.*", "", text, flags=re.MULTILINE)
        yield from ((" ".join(words.split()), False) for words in re.findall(r"`([^`]+)`", prose))


def commands() -> list[tuple[str, ...]]:
    """The words of each command in the pages, once, without comments, `...` filled."""
    written: dict[tuple[str, ...], None] = {}
    for text, is_line in texts():
        if re.match(rf"{START}( |$)", text):
            words = shlex.split(text.removeprefix(START), comments=is_line)
            more = MORE if "..." in words and any(word.startswith("model=") for word in words) else ()
            written[*(word for word in words if word != "..."), *more] = None
    return list(written)


def experiment_of(words: tuple[str, ...]) -> str:
    return next((word.removeprefix("experiment=") for word in words if word.startswith("experiment=")), "")


def is_job(words: tuple[str, ...]) -> bool:
    """Whether a command runs jobs, and needs nothing but this repository and a video."""
    needs = any(name in word for word in words for name in (*OF_READERS, GROUP))
    has_no_job = words[:1] == () or words[0] in COMMANDS or any(word.startswith("--") for word in words)
    return not (needs or (words and has_no_job) or experiment_of(words))


def is_start(start: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Whether an entry of `NOT_CHECKED` is about a command: it has these words, or is this one word."""
    return {*start} <= {*words} if len(start) > 1 else words == start


def reason(words: tuple[str, ...]) -> str:
    """Why a command is not checked; empty where it is."""
    return next((why for start, why in NOT_CHECKED.items() if is_start(start, words)), "")


ALL = [words for words in commands() if not reason(words)]
JOBS = [words for words in ALL if is_job(words)]
FURTHER = [words for words in ALL if words not in JOBS and " ".join(words) not in SHORT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader is, with results, and with a clip that is long enough for every model."""
    folder = tmp_path_factory.mktemp("reader")
    write_mp4(folder / "my.mp4", np.zeros((130, 64, 64, 3), np.uint8), fps=16)
    write_png(folder / "robot.png", np.zeros((480, 832, 3), np.uint8))
    made_output.write_output(folder / "outputs", taus=(1000.0, 0.0, 400.0, 700.0))
    return folder


@pytest.mark.parametrize("words", JOBS, ids=" ".join)
def test_a_command_of_the_pages_is_accepted(words, jobs, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(ranks, "visible_gpus", lambda *_: 8)
    assert run([*words]) == 0, capsys.readouterr().err
    assert jobs.ran or jobs.planned


@pytest.mark.parametrize("words", FURTHER, ids=" ".join)
def test_a_command_of_the_pages_is_read_to_what_a_reader_alone_has(words, jobs, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    if words[:1] in (("ui",), ("dashboard",)):  # a page that stays, and another one's server
        command_settings(words[0], {"ui": UiConfig, "dashboard": DashboardConfig}[words[0]], words[1:])
        return
    for module, name in (("prediction", "predict_job"), ("export", "export"), ("card_folder", "write_card")):
        monkeypatch.setitem(
            sys.modules, f"motionexp.jobs.{module}", SimpleNamespace(**{name: lambda *_: None})
        )
    monkeypatch.setattr(cli, "launch", lambda *_, **__: [])
    monkeypatch.setattr(launcher, "_problems", lambda _: [])  # of this machine: packages, Slurm's programs
    is_sweep = bool(experiment_of(words) or split_launcher(words)[0])
    code = run([*words, *(["dry_run=true"] if is_sweep and "dry_run=true" not in words else [])])
    # Without lines of progress, and without the heading of several problems.
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.endswith((" ...", ":"))]
    assert code in (0, 2)
    assert code == 0 or errors
    assert all(MISSING.search(error) for error in errors), errors


def test_the_short_commands_run_to_their_end(tmp_path, monkeypatch, capsys):
    made_output.write_output(tmp_path / "outputs")  # where nothing waits, so that --watch ends
    monkeypatch.chdir(tmp_path)
    for command in SHORT:
        assert tuple(command.split()) in commands()
        assert main(command.split()) == 0, capsys.readouterr().err
    assert (tmp_path / "outputs" / "report" / "index.html").is_file()
    assert (tmp_path / "my-report" / "index.html").is_file()
    assert [*(tmp_path / "outputs" / "tables").glob("*.md")]


def test_the_pages_have_many_commands_and_what_is_not_checked_is_listed():
    assert len(JOBS) > 40
    assert len(FURTHER) > 40
    assert [start for start in NOT_CHECKED if not any(is_start(start, words) for words in commands())] == []


def test_programs_of_the_pages_are_there_and_take_their_words(tmp_path, monkeypatch, capsys):
    programs = {text for text, _ in texts() if text.startswith("python -m motionexp")}
    assert len(programs) >= 9
    monkeypatch.chdir(tmp_path)
    for program in programs:
        module, *words = shlex.split(re.split(" && | #", program)[0].removeprefix("python -m "))
        assert find_spec(module), program
        for word in words:
            assert word in ("outputs", "outputs/") or word.endswith("/mine.yaml") or is_of_repository(word), (
                program
            )
        if module in PROGRAMS:
            assert import_module(module).main(words) == 2, program
            assert re.search(r"experiments/\S+\.yaml", capsys.readouterr().err), program


def is_of_repository(word: str) -> bool:
    """Whether a word names a file here, or a model of `scripts.pretrain.interventions`."""
    source = (ROOT / "motionexp" / "scripts" / "pretrain" / "interventions.py").read_text(encoding="utf-8")
    return (ROOT / word).exists() or f'"{word}"' in source


def test_targets_of_make_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z.][\w./-]*):", makefile, re.MULTILINE)
    named = set()
    for text, is_line in texts():
        pattern = r"make ([a-z][a-z. /-]*?)\s*(#.*)?" if is_line else r"make ([\w. /-]+)"
        if match := re.fullmatch(pattern, text):
            named |= {*match[1].split()}
    assert len(named) > 8
    assert named <= {*targets}
