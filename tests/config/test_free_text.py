"""Captions and paths reach a job letter by letter: in a single run, a sweep and a line of an experiment."""

import shlex
from collections.abc import Callable, Sequence

import pytest
import yaml  # type: ignore[import-untyped]
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from motionexp.config.command_line import as_values, check_once, prepared
from motionexp.config.compose import load
from motionexp.config.options import CONF
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError
from motionexp.jobs import experiment

TEXTS = [
    '"stop" on one sign and on the other "go"',
    "'in quotes'",
    '"in quotes"',
    "a dog, (fast) [brown] {x} = 5%, it's # one: \\ 🙂",
    "a ${seed} dog, ${oc.env:HOME} and ${",
    "  spaces at both ends  ",
    "two\nlines\tand a tab",
    "back\\slashes\\\\ at the end\\",
    "choice(a,b), range(1,3), glob(*)",
    "[a,b]",
    "700,800",
    "~ + ++ @ ! null",
]


def swept(overrides: Sequence[str]) -> list[JobConfig]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return [cfg for cfg, _ in experiment.check_sweep(prepared(overrides))]


def single(overrides: Sequence[str]) -> list[JobConfig]:
    return [load(overrides)]


def in_line(overrides: Sequence[str]) -> list[JobConfig]:
    return swept(shlex.split(" ".join(map(shlex.quote, overrides))))


@pytest.fixture
def clip(base, tmp_path, monkeypatch) -> list[str]:
    """A clip for a model of any words; its frames are not looked at."""
    monkeypatch.setattr(experiment, "_check_inputs", lambda cfg: None)
    folder = tmp_path / "a, ${b} 'clip'"
    folder.mkdir()
    return ["model=latte", base[1], f"video={folder}"]


@pytest.mark.parametrize("read", [single, in_line])
@pytest.mark.parametrize("text", TEXTS)
def test_signs_mean_nothing_in_free_text(text: str, read: Callable, clip: list[str], tmp_path) -> None:
    in_list = (
        text.replace("\\", "\\\\").replace('"', '\\"') if text.endswith("\\") else text.replace('"', '\\"')
    )
    output = f"{tmp_path}/{text.replace('/', '')}"
    words = [*clip[:1], clip[2], f"caption={text}", f"negative_prompt={text}", f"output={output}"]
    (cfg,) = read([*words, f'edits=["{in_list}", "b"]'])
    assert (cfg.caption, cfg.negative_prompt, cfg.output) == (text, text, output)
    assert (cfg.data["caption"], cfg.data["path"], cfg.video) == (text, cfg.video, clip[2][6:])
    if not text.endswith("\\"):
        assert cfg.edits == cfg.data["edits"] == [text, "b"]


def test_what_a_job_writes_down_of_its_settings_is_the_text() -> None:
    for text in TEXTS:
        written = OmegaConf.to_yaml(OmegaConf.create(as_values({"caption": text})), resolve=True)
        assert yaml.safe_load(written) == {"caption": text}


def test_a_sweep_over_texts_is_a_choice(clip) -> None:
    words = [*clip, 'caption=choice("a, ${x}", \'it\\\'s "b"\')', "edits=['c, d'],[\"e\"]", "tau=0"]
    jobs = swept(words)
    assert [(cfg.caption, cfg.edits) for cfg in jobs] == [
        ("a, ${x}", ["c, d"]),
        ("a, ${x}", ["e"]),
        ('it\'s "b"', ["c, d"]),
        ('it\'s "b"', ["e"]),
    ]
    with pytest.raises(InputError, match="needs -m"):
        load([*words[:-2], "edits=[a]"])


@pytest.mark.parametrize("read", [single, swept])
@pytest.mark.parametrize("word", ["data=captioned", "data.split=tuning", "data=folder"])
def test_a_video_with_other_data_is_an_error(word, read, clip) -> None:
    with pytest.raises(InputError, match=f"video= and {word}"):
        read([*clip, "caption=a", "edits=[b]", word])


def test_a_video_is_the_clip_of_a_sweep(clip) -> None:
    jobs = swept([*clip, "caption=a, b", "edits=[c]", "tau=0,700"])
    assert [(cfg.tau, cfg.data["caption"]) for cfg in jobs] == [(0, "a, b"), (700, "a, b")]


@pytest.mark.parametrize("words", [["seed=0", "seed=1"], ["tau=1", "+tau=1"], ["model=a", "model=b"]])
def test_a_setting_is_given_once(words) -> None:
    with pytest.raises(InputError, match=f"{words[0].partition('=')[0]}= is given 2 times"):
        check_once(["rank=1", *words])


@pytest.mark.parametrize(
    "word",
    ["hydra.run.dir=/x", "hydra.callbacks.x._target_=os.system", "+hydra.searchpath=[file:///x]",
     "hydra.mode=x", "hydra.sweeper._target_=os.system", " hydra.x=1", "--config-path=x", "~tau", "tau",
     "data@x=y", "list"],
)  # fmt: skip
def test_what_is_no_setting_of_a_job_is_refused(word) -> None:
    with pytest.raises(InputError, match=r"^" + word.strip().split("=")[0].replace("+", r"\+") + "|^ hydra"):
        prepared([word])


def test_launchers_and_sweepers_of_hydra_can_be_chosen() -> None:
    words = "hydra/launcher=joblib hydra.launcher.n_jobs=2 hydra.sweeper.params.tau=1 hydra.verbose=true"
    assert prepared(words.split()) == words.split()
