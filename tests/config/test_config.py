import itertools
import json
import re
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from motionexp.config import compose, schema
from motionexp.config.checks import vocabulary
from motionexp.config.command_line import prepared
from motionexp.config.compose import load
from motionexp.config.options import CONF, GROUPS
from motionexp.config.schema import JobConfig
from motionexp.config.settings import names_in
from motionexp.data.select import select_references, subjects_of
from motionexp.errors import InputError
from tests.support.words import WORDS

ROOT = Path(__file__).parents[2]
CLIP = ["video=.", "caption=a red ball", "edits=[a blue ball]"]


def problems(*overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load([*overrides])
    return str(caught.value).splitlines()


@cache
def code_and_conf() -> tuple[str, str]:
    """The text of the code that reads settings, and of conf/."""
    checks = ("checks.py", "compose.py", "help.py")
    code = (path for path in (ROOT / "motionexp").rglob("*.py") if path.name not in checks)
    return tuple("\n".join(path.read_text() for path in paths) for paths in (code, CONF.rglob("*.yaml")))


@pytest.mark.parametrize("name", [line.name for line in fields(JobConfig) if line.name not in GROUPS])
def test_each_setting_is_read_by_more_than_its_check(name):
    code, conf = code_and_conf()
    read_in_code = re.search(rf"\bcfg\.{name}\b|\b{name}\((self\.job\.)?cfg\)", code)
    assert read_in_code or f"${{{name}}}" in conf


# --- defaults


def test_what_suits_the_model_comes_from_its_file(base):
    cfg = load(base)
    model = cfg.model
    assert (cfg.tau, cfg.steps, cfg.frames) == (model.default_tau, model.steps, model.frames)
    assert (cfg.learning_rate, cfg.train_steps) == (model.learning_rate, model.train_steps)
    assert load([*base, "method=full_rank"]).learning_rate == model.full_rank_learning_rate


def test_the_first_papers_settings_are_the_default_for_latte(base):
    cfg = load(["model=latte", base[1]])
    assert (cfg.learning_rate, cfg.train_steps, cfg.weight_decay) == (3e-4, 200, 0.01)
    assert (cfg.rank, cfg.alpha, cfg.projections) == (4, 4.0, ["v", "o"])


def test_an_adapter_keeps_its_window_unless_one_is_given(base, tmp_path):
    (tmp_path / "adapter.safetensors").write_bytes(b"")
    assert load([*base, f"adapter={tmp_path}"]).tau is None
    assert load([*base, f"adapter={tmp_path}", "tau=300"]).tau == 300
    gated = load([*base, f"adapter={tmp_path}", "sampling_tau=300"])
    assert (gated.tau, gated.sampling_tau) == (None, 300)


def test_a_number_given_by_hand_wins(base):
    cfg = load([*base, "tau=0", "steps=7", "rank=8"])
    assert (cfg.tau, cfg.steps, cfg.rank, cfg.method["rank"]) == (0, 7, 8, 8)


@pytest.mark.parametrize("override", ["tau=-0", "tau=-0.0", "sampling_tau=-0.0", "eta=-0.0", "start=-0.0"])
def test_a_negative_zero_is_zero(override, base):
    name = override.partition("=")[0]
    assert str(getattr(load([*base, override]), name)) == "0.0"


@pytest.mark.parametrize(
    "override",
    [
        *(f"{name}={10**20}" for name in ("seed", "train_steps", "checkpoint_every")),
        *(f"{name}=1e39" for name in ("guidance_scale", "learning_rate", "alpha", "adapter_scale")),
    ],
)
def test_a_number_that_no_tensor_holds_is_named(override, base):
    (problem,) = problems(*base, override)
    assert problem.startswith(override.partition("=")[0])
    assert "too large" in problem


# --- what is wrong


WRONG = """
tau=-1 tau=1001 tau=nan tau=abc tau=null tau_high=1001 sampling_tau=-1 tau_high=600 sampling_tau_high=600
tau=[1] soft_window=[[400,0],[1000,1]] soft_window=[[700,0],[1000,2]] soft_window=[[700]] keep_steps=[100]
tau=0.56 sampling_tau=0.7
attention=time rank=0 rank=1.5 alpha=0 alpha=inf projections=[x] projections=[] projections=[v,v]
projections=v edits=[] metrics=[] metrics=[fid] references=0 references=[] train_steps=0 steps=0 eta=2
guidance_scale=0.5 frames=8 model.frame_step=0 seeds=0 seed=-1 memory_limit=0 device=gpu precision=fp8
text_precision=2bit sampler=ddpm logger=print dry_run=perhaps start=1 adapter=missing output=/proc/x
output=~/x model.path=/missing model=nope method=nope probe=poking probe_steps=5 probe_steps=25
probe_steps=1010 mode=slow method.rank=abc method.rank=0 method.projections=[x] method.projections=v
method.attention=time data.split=3 data.appearances=many scoring.resize=-1 scoring.pairs=some
rank=1000000000 seeds=1000000000 batch_size=1000000000 scoring.tracker=raft
scoring=ours model.fps=0 plugins=[no_such]
"""
"""One wrong setting each: the error begins with it as it was typed."""


REPEATED = (("references", "a"), ("edit_kinds", "style"), ("metrics", "text_alignment"), ("keep_steps", "1"))


@pytest.mark.parametrize("override", WRONG.split())
def test_a_wrong_value_is_named(override, base):
    (problem,) = problems(*base, override)
    assert problem.startswith(f"{override}: ") or override in problem.replace(", ", ",").replace(".0", "")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("tau=''", "tau=: a timestep"),
        ("edits=['']", "edits: a caption is empty"),
        ("edits=[a green ball]", "'green' in 'a green ball'"),
        ("negative_prompt=ugly", "negative_prompt: "),
        ("edits=[a red ball]]", "edits=[a red ball]]"),
        ("references=true", "references=True"),
        (f"output={__file__}/x", f"{__file__}/x"),
        *((f"{name}=[{item},{item}]", f"{name}: {item} stands in it twice") for name, item in REPEATED),
        ("output=half\udcff", "cannot write in half"),
        ("model=null", "model: one of "),
        ("tuu=3", " tau?"),
        ("+tuu=3", " tau?"),
        ("+method.rnak=3", " method.rank?"),
        ("method.rnak=3", " method.rank?"),
        ("+model.framse=3", " model.frames?"),
        ("scoring.clop=x", " scoring.clip?"),
        ("rank=${foo}", "rank: Interpolation key 'foo'"),
        ("scoring.tracker=cotracker", "scoring.tracker_weights=FILE"),
        ("scoring.tracker_weights=nowhere.safetensors", "scoring.tracker=cotracker"),
        ("scoring.scorer_revision=abc", "scoring.scorer"),
        ("metrics=[motion_diversity]", "seeds=2"),
        ("tau_from=boundary", "tau_from=boundary: "),
        ("+method.window=3", "method.window: "),
        ("method._target_=os.system", "plugins=[os]"),
        ("data._target_=motionexp.data.davis.Image", "motionexp.data.davis"),
        ("data._target_=motionexp.data.nothing.Suite", "motionexp.data.nothing"),
        ("model._target_=motionexp.backbones.latte.LatteBackbone", "model._target_="),
        ("data._target_=motionexp.jobs.cell.Cell", "a class of motionexp.data, or of a package in plugins="),
        ("model._target_=motionexp.hub.Hub.from_pretrained", "a class of motionexp.backbones"),
    ],
)
def test_an_error_names_what_would_be_right(override, named, base):
    (problem,) = problems(*base, override)
    assert named in problem


def test_parameters_with_defaults_may_be_left_out(base):
    assert load([*base, "~method.rank", "~data.split"])


def test_a_renamed_setting_or_option_names_the_new_one(base, monkeypatch):
    monkeypatch.setattr(compose, "RENAMED", {"data.old": "data.split", "data=former": "data=shapes"})
    assert problems(*base, "data.old=1") == ["data.old: renamed to data.split"]
    assert problems(*base, "data=former") == ["data=former: renamed to data=shapes"]


@pytest.mark.parametrize("name", names_in(JobConfig, lambda about: about.timestep))
@pytest.mark.parametrize("share", [0.7, 1])
def test_a_share_of_the_timesteps_is_no_timestep(name, share, base):
    assert f"{name}={1000 * share:g}?" in problems(*base, "tau=0", f"{name}={share}")[0]


def test_all_problems_are_listed_at_once(base):
    lines = problems(*base, "tau=1001", "rank=0", "projections=[x]", "+foo=1", "+method.bar=2")
    names = [line.split("=")[0].split(":")[0] for line in lines]
    assert names == ["foo", "method.bar", "tau", "rank", "projections"]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["video=missing.mp4", *CLIP[1:]], "video=missing.mp4"),
        (["video=.", "edits=[a ball]"], "caption="),
        (["video=.", "caption=a ball"], "edits="),
        ([*CLIP, "fps=8", "stride=2"], "fps= and stride="),
        ([*CLIP, "caption="], "caption: "),
        ([*CLIP, f"caption={'a ' * 500}"], " 500 .*tiny_latte.* 120"),
        ([*CLIP, "caption=it's a ball, 🙂"], "'ball,', \"it's\", '🙂' "),
    ],
)
def test_clips_and_captions(overrides, named, base):
    (problem,) = problems(*base, *overrides)
    assert re.search(named, problem)


def test_a_real_model_takes_any_words_up_to_its_length(base):
    words = ["model=latte", base[1], "video=.", "edits=['a robot, running: \"fast\" 🙂']"]
    assert load([*words, 'caption=it\'s a dog, on "grass" 🙂']).caption == 'it\'s a dog, on "grass" 🙂'
    (problem,) = problems(*words, f"caption={'dog ' * 500}")
    assert re.search(r"caption.* 500 .*latte.* 120 ", problem)


def test_free_text_reaches_the_job_as_it_was_typed():
    parser = OverridesParser.create()
    for length in range(5):
        for letters in itertools.product("a'\\\"$, {", repeat=length):
            text = "".join(letters)
            override = parser.parse_override(*prepared([f"caption={text}"]))
            # A sweep writes what it has parsed for the parser of its job.
            again = parser.parse_override(f"caption={override.get_value_element_as_str()}")
            config = OmegaConf.create({"caption": again.value(), "path": "${caption}"})
            assert (config.caption, config.path) == (text, text)
    unchanged = ["caption=null", "tau=3"]
    assert prepared(unchanged) == unchanged


def test_a_video_chooses_its_reader(base):
    cfg = load([*base, *CLIP, "edits=[A Red Ball]"])  # capital letters are no unknown words
    assert (cfg.data["path"], cfg.edits) == (".", ["A Red Ball"])
    assert "split" in load(base).data


def test_the_words_of_a_model(base):
    assert vocabulary(load(base).model) == sorted(WORDS)
    with pytest.raises(InputError, match="model=latte"):
        vocabulary(load(["model=latte", base[1]]).model)


def test_a_tokenizer_of_letters_and_parts_of_words_names_the_words(base, model_folder):
    """Each of them is a token, as in a tokenizer of byte pairs; only some are words."""
    file = model_folder / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps({schema.CLOSED_VOCABULARY: ["red", "a", "ball"]}))
    assert vocabulary(load(base).model) == ["a", "ball", "red"]
    (problem,) = problems(*base, *CLIP, "caption=A red ball", "edits=['a blue ball']")
    assert re.search("edits: tiny_latte .*'blue'", problem)


def test_references_by_number_and_by_name():
    names = ["r0", "r1", "r2"]
    of_names = (("r1", ["r1"]), (["r2", "r0"], ["r2", "r0"]))
    for references, chosen in ((2, names[:2]), ("all", names), *of_names):
        assert select_references(references, names) == chosen
    for references, named in ((4, "references=4: .* 3"), (["r3", "r4"], "r3, r4")):
        with pytest.raises(InputError, match=named):
            select_references(references, names)


def test_a_probe_takes_enough_references_for_a_boundary(base):
    assert [len(subjects_of(load([*base, *more]))[0]) for more in ([], ["probe=tampering"])] == [1, 6]
    assert len(subjects_of(load([*base, "probe=tampering", "references=2"]))[0]) == 2
    assert select_references(None, ["clip"], probed=True) == ["clip"]


def test_settings_are_checked_without_torch(base):
    wrong = ["model=latte", "method.rank=abc", "method._target_=os.system"]
    code = (
        "import json, sys; from motionexp.cli import main\n"
        "base, wrong = map(json.loads, sys.argv[1:])\n"
        "assert [main([*base, word]) for word in wrong] == [2, 2, 2]\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    command = [sys.executable, "-c", code, json.dumps(base), json.dumps(wrong)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(word in result.stderr for word in wrong)


def test_auto_is_the_stored_boundary(base):
    cfg = load([*base, "tau=auto", "model.boundary=640", "model.boundary_weights=0123456789ab"])
    assert (cfg.tau, cfg.tau_from) == (640.0, "boundary")
    assert load([*base, "tau=640"]).tau_from == "given"
    with pytest.raises(InputError, match="tau=auto"):
        load([*base, "tau=auto", "model.boundary=null"])


@pytest.mark.parametrize("weights", ["''", "null", "0123456789a", "0123456789abc", "0123456789AB"])
def test_a_boundary_says_of_which_weights_it_is(base, weights):
    for tau in ("500", "auto"):
        (line,) = problems(*base, f"tau={tau}", "model.boundary=640", f"model.boundary_weights={weights}")
        assert line.startswith("model.boundary_weights=")


def test_presets_differ_in_the_pairs_alone_and_names_of_ones_own_go_before_them(base):
    from motionexp.config.scoring_models import TGVE_MODELS, ScoringModels, scoring_models

    def models(*overrides: str) -> ScoringModels:
        return scoring_models(load([*base, *overrides]).scoring, closed_vocabulary=True)

    assert models() == ScoringModels()
    for preset, pairs in (("tgve", "pairs"), ("paper", "consecutive")):
        assert models(f"scoring={preset}") == TGVE_MODELS
        assert load([*base, f"scoring={preset}"]).scoring.pairs == pairs
    mixed = models("scoring=tgve", "scoring.clip=ViT-B-32/openai", "scoring.resize=0")
    assert (mixed.clip, mixed.resize, mixed.preference) == ("ViT-B-32/openai", 0, TGVE_MODELS.preference)
