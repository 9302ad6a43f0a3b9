import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path
from weakref import WeakSet

import pytest

from motionexp.config.options import CONF, EXPERIMENTS, GROUPS, options
from motionexp.config.schema import JobConfig, ModelConfig, TrainerConfig
from motionexp.data.videos import write_mp4
from motionexp.errors import InputError, Stopped
from motionexp.jobs import experiment, submission
from motionexp.jobs.experiment import experiment_jobs
from motionexp.jobs.machine import DiskError
from tests.jobs.test_ablations import ABLATIONS
from tests.support.stub_jobs import run
from tests.support.words import WORDS

pytestmark = pytest.mark.usefixtures("quiet")
ROOT = Path(__file__).parents[1]

# As text: to read the layouts takes seconds in each process that collects tests.
SWEEPS = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if "\nsweep: []\n" not in path.read_text()]


def test_one_job(base, jobs):
    assert run([*base, "dry_run=true"]) == 0
    assert (len(jobs.planned), len(jobs.ran)) == (1, 0)
    assert run([*base, "tau=300"]) == 0
    (cfg,) = jobs.ran
    assert cfg.tau == 300
    assert isinstance(cfg.model, ModelConfig)


def test_a_sweep_is_one_job_for_each_combination(base, jobs):
    assert run(["-m", *base, "tau=0,300", "rank=2,4"]) == 0
    assert [(cfg.tau, cfg.rank) for cfg in jobs.ran] == [(0, 2), (0, 4), (300, 2), (300, 4)]


def test_nothing_runs_with_wrong_settings(base, jobs, capsys):
    assert run([*base, "tau=1001", "+foo=1"]) == 2
    shown = capsys.readouterr().err
    assert all(setting in shown for setting in ("tau=1001", "foo"))
    assert "Traceback" not in shown
    assert not jobs.ran


@pytest.mark.parametrize(
    "wrong",
    [
        *(["tau=0,abc"], ["tau=0,300", "+foo=1"], ["references=1,nobody"], ["~model", "tau=0,1"]),
        ["probe=tampering", "probe_steps=30,50"],
    ],
)
def test_no_job_of_a_sweep_starts_before_all_are_checked(wrong, base, jobs, capsys):
    assert run(["-m", *base, *wrong]) == 2
    assert "error:" in capsys.readouterr().err
    assert not jobs.ran


@pytest.mark.parametrize("flags", [["dry_run=true"], ["-m"], []])
@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (
            ["tau=auto", "model.boundary=640", "model.boundary_weights=0123456789ab"],
            "tau=auto: .* 640 .*model=tiny_latte .* 0123456789ab",
        ),
        (["probe=tampering", "probe_steps=30"], "probe_steps=30: "),
    ],
)
def test_wrong_input_is_an_error_before_weights_load(flags, wrong, problem, tmp_path, capsys, monkeypatch):
    from motionexp.jobs import plan

    monkeypatch.setattr(plan, "get_object", None)
    assert run([*flags, f"output={tmp_path / 'out'}", *wrong]) == 2
    shown = capsys.readouterr()
    assert re.search(problem, shown.err)
    assert "Launching" not in shown.out
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_sweeps_problems_are_listed_once_each(base, jobs, capsys):
    assert run(["-m", *base, "tau=0,1001,1002", "rank=0,4", "seeds=0"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("checking")]
    problems = dict(line.removeprefix("error:").strip().split(":", 1) for line in lines)
    assert len(lines) == len(problems) == 4
    assert re.search("tau=0 rank=0 .* 2 ", problems["rank=0"])
    assert "tau=" not in problems["seeds=0"]  # of every job
    for t in (1001, 1002):
        assert re.search(f"tau={t} rank=0 .* 1 ", problems[f"tau={t}"])


@pytest.mark.parametrize("error", [InputError, FloatingPointError])
def test_a_failed_job_does_not_stop_the_jobs_after_it(error, base, jobs, capsys):
    jobs.error = {0: error("the loss is nan"), 300: error("the disk is full")}
    assert run(["-m", *base, "tau=0,300,600"]) == 1
    assert [cfg.tau for cfg in jobs.ran] == [0, 300, 600]
    shown = capsys.readouterr().err
    assert all(problem in shown for problem in ("tau=0", "the loss is nan", "the disk is full"))
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("error", "code", "problem"),
    [
        (InputError("this video is damaged"), 2, "error: this video is damaged"),
        (OSError(28, "No space left on device", "rows.jsonl"), 1, "No space left on device: 'rows.jsonl'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Stopped(signal.SIGTERM), 143, "SIGTERM"),
        (Stopped(signal.SIGHUP), 129, "SIGHUP"),
        (MemoryError("try mode=low_memory"), 1, "mode=low_memory"),
        (DiskError("rows.jsonl: cannot be written"), 1, "rows.jsonl"),
        (BrokenPipeError(32, "Broken pipe"), 141, "| head"),
        (InputError("a name with \x1b[2J"), 2, "\\x1b[2J"),
    ],
)
def test_an_error_of_a_job_is_one_line(error, code, problem, base, jobs, capsys):
    jobs.error = {300: error}
    assert run([*base, "tau=300"]) == code
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert problem in line
    # A sweep of which nothing ran ends so too.
    assert run(["-m", *base, "tau=300"]) == code
    assert problem.removeprefix("error: ") in capsys.readouterr().err


def test_an_exit_of_rich_where_nobody_reads_is_a_broken_pipe(base, jobs, capsys):
    left = SystemExit(1)
    left.__context__ = BrokenPipeError(32, "Broken pipe")
    jobs.error = {300: left}
    assert run([*base, "tau=300"]) == 141
    assert "| head" in capsys.readouterr().err


def test_a_failed_job_s_model_is_freed_before_the_next_job(base, jobs, monkeypatch):
    class Model:
        """What a job holds in a variable."""

    alive = WeakSet()

    def run_job(cfg: JobConfig) -> None:
        assert not alive
        model = Model()
        alive.add(model)
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(jobs, "run", run_job)
    assert run(["-m", *base, "tau=0,300"]) == 1


def test_a_dry_run_that_finds_a_problem_fails_after_its_plan(base, jobs, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "plan", lambda cfg: print("the plan") or ["it does not fit"])
    assert run([*base, "dry_run=true"]) == 2
    shown = capsys.readouterr()
    assert ("the plan" in shown.out, "error: it does not fit" in shown.err) == (True, True)


@pytest.mark.parametrize("flags", [[], ["-m"], ["dry_run=true"]])
def test_an_output_that_cannot_be_a_folder_is_refused_before_the_job(flags, base, jobs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "out", tmp_path / ("x" * 300)):
        assert run([*flags, base[0], f"output={output}"]) == 2
        assert "output=" in capsys.readouterr().err
    assert not jobs.ran + jobs.planned


def test_a_mistake_of_ours_is_not_hidden(base, jobs):
    jobs.error = {300: ZeroDivisionError("ours")}
    with pytest.raises(ZeroDivisionError):
        run([*base, "tau=300"])


def test_a_run_leaves_no_folder_of_hydra_s(base, jobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert run([*base]) == 0
    assert set(tmp_path.iterdir()) == before


def test_a_clip_is_read_before_the_job_starts(base, jobs, tmp_path, capsys):
    import numpy as np

    clip = tmp_path / "it's, a clip.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3)).astype(np.uint8)
    write_mp4(clip, frames, fps=8)
    overrides = [*base, f"video={clip}", "caption=a red ball", "edits=[a blue ball]"]
    assert run(overrides) == 0
    assert jobs.ran[0].video == str(clip)
    for short in (["stride=2"], ["stride=2", "probe=tampering"]):
        assert run([*overrides, *short]) == 2
        assert " 20 frames" in capsys.readouterr().err
    clip.write_text("no video")
    assert run(overrides) == 2
    assert clip.name in capsys.readouterr().err
    assert len(jobs.ran) == 1


def test_a_suite_s_folder_is_looked_at_before_a_sweep_starts(base, jobs, tmp_path, capsys):
    for data, missing in (("tgve", "Dataset.csv"), ("davis", "480p"), ("folder", "captions.csv")):
        assert run(["-m", *base, f"data={data}", f"data.path={tmp_path}", "tau=0,300"]) == 2
        assert missing in capsys.readouterr().err
    assert not jobs.ran


def test_cfg_shows_the_resolved_settings(base, jobs, capsys):
    assert run([*base, "--cfg", "job"]) == 0
    shown = capsys.readouterr().out
    assert "${" not in shown
    assert f"output: {base[1].removeprefix('output=')}" in shown
    assert not jobs.ran


def test_help_names_every_choice_with_a_line(capsys):
    assert run(["--help"]) == 0
    # The line of a name that is too long for its column stands below it.
    printed = re.sub(r"(?m)^(  \S+)\n {20,}", r"\1 ", capsys.readouterr().out)
    shown = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.strip()}
    choices = [f"{group}={option}" for group in GROUPS for option in options(group)]
    choices += [f"experiment={path.stem}" for path in SWEEPS]
    assert not [choice for choice in choices if not shown.get(choice)]
    explained = {choice.split("=")[0] for choice, line in shown.items() if line}
    assert {line.name for line in fields(JobConfig)} - {"trainer"} <= explained
    assert {f"trainer.{line.name}" for line in fields(TrainerConfig)} <= explained
    assert {f"model.{line.name}" for line in fields(ModelConfig)} <= explained


def test_list_prints_words_and_references(base, capsys):
    assert run(["list", "words", base[0]]) == 0
    assert capsys.readouterr().out.split() == sorted(WORDS)
    assert run(["list", "references", "data.split=tuning"]) == 0
    names = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert len(names) == 12


def test_score_is_handed_its_settings(jobs, tmp_path, capsys):
    assert run(["score", f"folder={tmp_path}", "data=tgve", "system=theirs", "frames=16"]) == 0
    (cfg,) = jobs.scored
    assert (cfg.folder, cfg.name, cfg.frames) == (str(tmp_path), "theirs", 16)
    assert run(["score", f"folder={tmp_path}", "tau=700"]) == 2
    assert "tau: " in capsys.readouterr().err


def test_submission_is_handed_folders_and_what_chooses(tmp_path, monkeypatch, capsys):
    written: list[tuple] = []
    monkeypatch.setattr(submission, "write_submission", lambda *about: written.append(about) or (4, 304))
    assert run(["submission", f"folder={tmp_path}/new", f"samples={tmp_path}", "tau=700", "seed=0"]) == 0
    assert written == [(tmp_path, tmp_path / "new", {"tau": "700", "seed": "0"})]
    assert re.search(r"\b4 .* 304 ", capsys.readouterr().out)
    assert run(["submission", "folder=new"]) == 2
    assert "samples=" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "models"],
        ["list", "words", "tuu=1"],
        ["list", "words", "-m"],
        ["list", "words", "tau=1"],
    ],
)
def test_list_says_what_it_lists(arguments, capsys):
    assert run(arguments) == 2
    assert "error:" in capsys.readouterr().err


# --- experiments


def test_an_experiment_is_checked_as_a_whole(base, jobs, monkeypatch, tmp_path, capsys):
    (tmp_path / "toy.yaml").write_text(
        'question: "?"\ncost: nothing\nrows: ""\nselect: {}\nsettings: {}\ncolumns: {}\ntables: []\n'
        'sweep: ["model=tiny_latte tau=0,500 seeds=2", model=tiny_latte tau=1000 seeds=2 rank=0]\n'
    )
    monkeypatch.setattr("motionexp.jobs.experiment.EXPERIMENTS", tmp_path)
    assert run(["experiment=toy", *base]) == 2
    assert "rank=0" in capsys.readouterr().err
    assert not jobs.ran
    assert run(["experiment=toy", *base, "rank=4", "dry_run=true"]) == 0
    # A dry run plans all jobs at once.
    assert [(cfg.tau, cfg.seeds, cfg.rank) for cfg in jobs.planned] == [(0, 2, 4), (500, 2, 4), (1000, 2, 4)]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nope", "demo"),
        ("tau_look", "experiment=tau_selection"),
        ("bench", "`make bench`"),
    ],
)
def test_an_experiment_that_cannot_be_run(name, problem, capsys):
    assert run([f"experiment={name}"]) == 2
    assert problem in capsys.readouterr().err


OTHERS = [path for path in SWEEPS if path.stem not in ABLATIONS]  # which a test of their own composes whole


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_every_line_of_an_experiment_composes(path, base, monkeypatch):
    """The last job of each line: to compose one takes 0.1 s, and some experiments have a hundred."""
    jobs_of = experiment._jobs

    def last(overrides):
        fixed, jobs = jobs_of(overrides)
        return fixed, jobs[-1:]

    monkeypatch.setattr(experiment, "_jobs", last)
    # The steps of a probe have to suit the model's own schedule.
    layout, sweeps, jobs = experiment_jobs(path.stem, base[1:] if path.stem == "shift" else base)
    assert len(sweeps) == len(layout.sweep) == len(jobs)
    # What the layout calls the window is what a job without tau= runs.
    words = [word for sweep in sweeps for word in sweep.arguments if word.startswith("tau=")]
    values = {value for word in words for value in word.removeprefix("tau=").split(",")}
    values |= {f"{cfg.tau:g}" for cfg in jobs}
    labels = [label for setting in layout.settings.values() for label in setting.labels]
    if values == {"0"}:  # a method as published, at all timesteps: nothing there may be called a window
        assert not any("window" in label for label in labels)
    else:
        assert f"{jobs[0].model.default_tau:g}" in values


# --- from outside


def python(*arguments: str, cwd: Path, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", [[str(ROOT / "run.py"), "tau=-1"], ["-m", "motionexp", "-m", "tau=0,-1"]])
def test_the_command_is_run_py_and_the_package(base, tmp_path, words):
    result = python(*words, *base, cwd=tmp_path, path=ROOT)
    assert (result.returncode, result.stdout) == (2, "")
    assert "tau=-1: " in result.stderr
    assert "Warning" not in result.stderr
    assert len((ROOT / "run.py").read_text().splitlines()) <= 60


def test_a_wheel_does_what_run_py_does_outside_the_checkout(base, tmp_path):
    built = python("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=ROOT, path=ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    away = tmp_path / "away"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(away)
        entry_points = archive.read(
            next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        )
    assert b"motionexp = motionexp.__main__:run" in entry_points
    inside = {
        path.relative_to(away / "motionexp") for path in (away / "motionexp").rglob("*") if path.is_file()
    }
    for folder in (CONF, EXPERIMENTS):
        assert {Path(folder.name) / path.relative_to(folder) for path in folder.rglob("*.yaml")} <= inside
    tracked = subprocess.run(
        ["git", "ls-files", "motionexp"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    assert {Path(path).relative_to("motionexp") for path in tracked} <= inside
    code = "import sys; from motionexp.cli import CONF, main; print(CONF); sys.exit(main())"
    result = python("-c", code, "--cfg", "job", *base, cwd=tmp_path, path=away)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(away / "motionexp" / "conf"))
    assert base[0].removeprefix("model.path=") in result.stdout
