"""Every command of README and docs/ that runs jobs is accepted as it stands there, with stubs for jobs.

The short ones run.
"""

import shlex
from pathlib import Path

import numpy as np
import pytest

from motionexp.cli import main
from motionexp.config import ranks
from motionexp.config.command_line import COMMANDS
from motionexp.config.options import EXPERIMENTS
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
    "hydra/launcher",
    "DIR",
    "FOLDER",
    "/ID",
    "NEW",
    "outputs/",
    "lora.safetensors",
    "path/to",
    "their",
    "model=mine",
)

pytestmark = pytest.mark.usefixtures("quiet")


def commands() -> list[tuple[str, ...]]:
    """The words of each command in the pages, once, without comments, `...` filled."""
    found: dict[tuple[str, ...], None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in map(str.strip, text.splitlines()):
            if line.startswith(START) and "|" not in line:
                words = shlex.split(line.removeprefix(START), comments=True)
                more = MORE if "..." in words and any(word.startswith("model=") for word in words) else ()
                found[*(word for word in words if word != "..."), *more] = None
    return list(found)


def is_checked(words: tuple[str, ...]) -> bool:
    """Whether a command runs jobs, and needs nothing but this repository and a video."""
    needs = any(name in word for word in words for name in OF_READERS)
    has_no_job = "--help" in words or words[:1] == () or words[0] in COMMANDS
    return not (needs or (words and has_no_job) or experiment_of(words))


def experiment_of(words: tuple[str, ...]) -> str:
    return next((word.removeprefix("experiment=") for word in words if word.startswith("experiment=")), "")


# Commands that take no longer than seconds, on the results of earlier runs.
SHORT = (
    "--help",
    "status",
    "table output=outputs by=tau",
    "report output=outputs",
    "report output=outputs folder=my-report",
)
CHECKED = [words for words in commands() if is_checked(words)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader is, with a clip that is long enough for every model."""
    folder = tmp_path_factory.mktemp("reader")
    write_mp4(folder / "my.mp4", np.zeros((130, 64, 64, 3), np.uint8), fps=16)
    write_png(folder / "robot.png", np.zeros((480, 832, 3), np.uint8))
    return folder


@pytest.mark.parametrize("words", CHECKED, ids=" ".join)
def test_a_command_of_the_pages_is_accepted(words, jobs, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(ranks, "visible_gpus", lambda *_: 8)
    assert run([*words]) == 0, capsys.readouterr().err
    assert jobs.ran or jobs.planned


def test_the_short_commands_run_to_their_end(tmp_path, monkeypatch, capsys):
    made_output.write_output(tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    for command in SHORT:
        assert tuple(command.split()) in commands()
        assert main(command.split()) == 0, capsys.readouterr().err
    assert (tmp_path / "outputs" / "report" / "index.html").is_file()
    assert (tmp_path / "my-report" / "index.html").is_file()
    assert [*(tmp_path / "outputs" / "tables").glob("*.md")]


def test_the_pages_have_many_commands_and_every_experiment_they_name():
    assert len(CHECKED) > 40
    named = {experiment_of(words) for words in commands()} - {"", "path/to/mine.yaml"}
    assert named
    assert not [name for name in named if not (EXPERIMENTS / f"{name}.yaml").exists()]
