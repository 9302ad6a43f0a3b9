"""What the command refuses before anything runs: words without effect, and files that would run code."""

import pytest

from motionexp.files import version
from motionexp.results.layout_file import read_layout
from tests.support.stub_jobs import run

EMPTY = [([], name) for name in ("output", "video", "adapter", "--config-dir")]
EMPTY += [(["table"], "output"), (["list", "runs"], "output"), (["score"], "folder")]
EMPTY += [(["submission", "folder=a"], "samples")]

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["lis"], "lis: there is no such command; did you mean list?"),
        (["tua=3", "tau"], "did you mean tau=VALUE?"),
        (["rank=8", "list", "words"], "list: a command is the first word"),
        (["--verson"], "--verson: there is no such flag; did you mean --version?"),
        (["model=Tiny_Late"], "model=Tiny_Late: did you mean tiny_latte?"),
        (["method=lorra"], "did you mean lora?"),
        (["attention=spatal"], "did you mean spatial?"),
        (["metrics=[text_alignmnt]"], "did you mean text_alignment?"),
        (["references=[01-wander-cyan-squar]"], "did you mean 01-wander-cyan-square?"),
        (["references=99"], "references=99: there are 76; `python run.py list references`"),
        (["list", "runz"], "did you mean runs?"),
        (["score", "fodler=x"], "did you mean folder?"),
        (["--config-name=x"], "--config-name=x: there is no such flag"),
        (["--config-dir"], "--config-dir needs a value"),
        (["seed=0", "seed=1"], "seed= is given 2 times"),
        (["experiment=tau", "experiment=rank"], "experiment= is given 2 times"),
        (["list"], "list: one of references"),
        *(([word], f"{word}: the setting's name is missing") for word in ("=x", "+=x", "++=x", " =x", "==")),
        (["", "tau=0"], "'': no command"),
        (["-c", "seed=0"], "-c seed=0: one of job, hydra, all"),
        (["--info=bogus"], "--info bogus: one of all, config"),
        *(([*command, f"{name}="], f"{name}=: the path is empty") for command, name in EMPTY),
        (["experiment=tau", "--cfg", "job"], "--cfg has no effect with experiment=tau"),
        (["experiment=tao"], "did you mean tau?"),
        (["experiment=no/such.yaml"], "experiment=no/such.yaml: there is no such file"),
        (["score", "folder=.", "-m"], "-m has no effect with score"),
        (["submission", "folder=a", "samples=b", "tau=1", "tau=2"], "tau= is given 2 times"),
        (["tau=0,700"], "tau=0,700: several values are a sweep, which needs -m"),
        (["rank=8", "tau=1000"], "rank=: has no effect with tau=1000"),
        (["-m", "rank=8,4", "tau=1000"], "rank=: has no effect with tau=1000"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_an_error(arguments, named, jobs, capsys):
    assert run(arguments) == 2
    assert named in capsys.readouterr().err
    assert not jobs.ran


@pytest.mark.parametrize("flags", [[], ["-m"], ["-m", "dry_run=true"]])
def test_a_model_of_real_videos_asks_for_data(flags, base, jobs, capsys):
    assert run([*flags, "model=latte", base[1], "tau=650"]) == 2
    # A slow check says first that it checks.
    *checks, shown = capsys.readouterr().err.splitlines()
    assert all(line.startswith("checking the settings") for line in checks)
    assert shown.startswith("error: model=latte is for real videos")
    assert "name data= or video=" in shown
    assert all(f"run.py model=latte {data}" in shown for data in ("video=my.mp4", "data=tgve data.path=DIR"))
    assert not jobs.ran + jobs.planned


def test_the_version_is_this_program_s(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["motionexp", version()]


# --- experiments from elsewhere

HARMLESS = """question: "${oc.env:HOME}?"
cost: nothing
rows: ""
select: {}
settings: {}
columns: {}
tables: []
"""


@pytest.mark.parametrize(
    ("line", "more", "named"),
    [
        ("+hydra.callbacks.x._target_=os.system", "", "only for the command line"),
        ("' hydra.searchpath=[file:///x]'", "", "only for the command line"),
        ("hydra/launcher=basic", "", "only for the command line"),
        ("plugins=[os]", "", "only for the command line"),
        ("output=/etc/x", "", "output=/etc/x: only the command line"),
        ("output=../x", "", "output=../x: only the command line"),
        ("seed=${oc.env:HOME}", "", "it can refer to settings only"),
        ("data._target_=shutil.rmtree", "", "plugins=[shutil]"),
        ("", "report: os.system", "report=os.system: code of os is only run with plugins=[os]"),
        ("", "report: motionexp.files.write_whole", "it must be a function NAME(layout: Layout"),
        ("", "report: !!python/name:os.system x", "the tag"),
        ("", "pages: [../x]", "../x: a path below"),
    ],
)
def test_an_experiment_from_elsewhere_runs_no_code(line, more, named, base, jobs, tmp_path, capsys):
    path = tmp_path / "theirs.yaml"
    path.write_text(f'{HARMLESS}sweep: ["model=tiny_latte {line}"]\n{more}\n')
    given = [base[0], *([] if "output=" in line else [base[1]]), "dry_run=true"]
    assert run([f"experiment={path}", *given]) == 2
    assert named in capsys.readouterr().err
    assert not jobs.ran + jobs.planned


def test_an_experiment_s_path_and_an_option_of_ones_own(base, jobs, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(HARMLESS + 'sweep: ["model=mine tau=1000,300 rank=2 alpha=${rank}"]\n')
    (tmp_path / "own" / "model").mkdir(parents=True)
    text = (
        "defaults: [/model/family/latte@_here_, /model/family/bundled@_here_, _self_]\nname: mine\npath: x\n"
    )
    (tmp_path / "own" / "model" / "mine.yaml").write_text(f"{text}default_tau: 600\n")
    assert run([f"experiment={path}", *base, "--config-dir", str(tmp_path / "own")]) == 0
    assert [(cfg.model.name, cfg.tau, cfg.alpha) for cfg in jobs.ran] == [
        ("mine", 1000, 2),
        ("mine", 300, 2),
    ]
    assert read_layout(path).question == "${oc.env:HOME}?"
