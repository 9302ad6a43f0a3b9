import itertools
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from motionexp.config import schema, scoring
from motionexp.config.checks import vocabulary
from motionexp.config.compose import CONF, GROUPS, load, prepared
from motionexp.config.schema import JobConfig, wanted_references
from motionexp.data.select import select_references
from motionexp.errors import InputError
from tests.support.words import WORDS

ROOT = Path(__file__).parents[2]
CLIP = ["video=.", "caption=a red ball", "edits=[a blue ball]"]


def problems(overrides: list[str]) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", [each.name for each in fields(JobConfig) if each.name not in GROUPS])
def test_each_setting_is_read_by_more_than_its_check(name):
    code = "\n".join(
        path.read_text()
        for path in (ROOT / "motionexp").rglob("*.py")
        if path.name not in ("checks.py", "compose.py", "help.py")
    )
    read_in_code = re.search(rf"\bcfg\.{name}\b|\b{name}\((self\.job\.)?cfg\)", code)
    read_in_conf = any(f"${{{name}}}" in path.read_text() for path in CONF.rglob("*.yaml"))
    assert read_in_code or read_in_conf


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


def test_a_number_given_by_hand_wins(base):
    cfg = load([*base, "tau=0", "steps=7", "rank=8"])
    assert (cfg.tau, cfg.steps, cfg.rank, cfg.method["rank"]) == (0, 7, 8, 8)


# --- what is wrong


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tau=-1", "tau=-1: a timestep from 0"),
        ("tau=1001", "tau=1001: a timestep from 0"),
        ("tau=nan", "tau=nan: a timestep"),
        ("tau=abc", "tau=abc: a timestep from 0"),
        ("tau=null", "tau=null: only with adapter="),
        ("tau_high=1001", "tau_high=1001: a timestep from 0 to 1000"),
        ("sampling_tau=-1", "sampling_tau=-1: a timestep from 0 to 1000"),
        ("tau_high=600", "tau_high=600: below tau=700"),
        ("sampling_tau_high=600", "sampling_tau_high=600: nothing is in [700, 600]"),
        ("soft_window=[[400,0],[1000,1]]", "timesteps ascend from tau=700 to"),
        ("soft_window=[[700,0],[1000,2]]", "weights are from 0 to 1"),
        ("soft_window=[[700]]", "pairs of timestep and weight"),
        ("keep_steps=[100]", "keep_steps=[100]: whole numbers from 1, below train_steps=100"),
        ("attention=time", "attention=time: one of motion, spatial, cross, all"),
        ("rank=0", "rank=0: a whole number from 1"),
        ("rank=1.5", "rank=1.5: a whole number"),
        ("alpha=0", "alpha=0: a number above 0"),
        ("alpha=inf", "alpha=inf: a number above 0"),
        ("projections=[x]", "projections=[x]: one or more of q, k, v, o"),
        ("projections=[]", "projections=[]: one or more"),
        ("projections=[v,v]", "projections=[v,v]: one or more of q, k, v, o, each once"),
        ("projections=v", "projections=v: a list"),
        ("edits=[]", "edits=[]: name at least one"),
        ("edits=['']", "edits: a caption is empty"),
        ("edits=[a green ball]", "does not know 'green' in 'a green ball'"),
        ("edits=[a red ball]]", "cannot read"),
        ("negative_prompt=ugly", "negative_prompt: tiny_latte does not know 'ugly'"),
        ("metrics=[]", "metrics=[]: name at least one"),
        ("metrics=[fid]", "metrics=[fid]: some of text_alignment"),
        ("references=0", "references=0: a number from 1"),
        ("references=[]", "references=[]: a number from 1"),
        ("references=true", "references=True: a number from 1"),
        ("train_steps=0", "train_steps=0: a whole number from 1"),
        ("steps=0", "steps=0: a whole number from 1 to 1000"),
        ("eta=2", "eta=2: a number from 0"),
        ("guidance_scale=0.5", "guidance_scale=0.5: a number from 1"),
        ("frames=8", "frames=8: tiny_latte makes videos of exactly 16 frames"),
        ("model.frame_step=0", "model.frame_step=0: a whole number from 1"),
        ("seeds=0", "seeds=0: a whole number from 1"),
        ("seed=-1", "seed=-1: a whole number from 0"),
        ("memory_limit=0", "memory_limit=0: a number above 0"),
        ("device=gpu", "device=gpu: auto, cpu, cuda"),
        ("precision=fp8", "precision=fp8: one of auto, fp32"),
        ("text_precision=2bit", "text_precision=2bit: one of auto, 8bit, 4bit"),
        ("sampler=ddpm", "sampler=ddpm: one of ddim"),
        ("logger=print", "logger=print: one of csv"),
        ("dry_run=perhaps", "dry_run=perhaps: true or false"),
        ("caption=a red ball", "caption= describes a clip of your own"),
        ("start=1", "start= describes a clip of your own"),
        ("adapter=missing", "adapter=missing: no adapter.safetensors there"),
        ("output=/proc/x", "output=/proc/x: cannot write in /proc"),
        ("output=~/x", "output=~/x: the shell has left the ~"),
        (f"output={__file__}/x", "Not a directory"),
        ("model.path=/missing", "/missing has no model_index.json"),
        ("model=nope", "model=nope: one of "),
        ("model=null", "model: one of "),
        ("method=nope", "method=nope: one of full_rank, lora"),
        ("tuu=3", "tuu: there is no such setting; did you mean tau?"),
        ("+tuu=3", "tuu: there is no such setting; did you mean tau?"),
        ("+method.rnak=3", "method.rnak: there is no such setting; did you mean method.rank?"),
        ("+model.framse=3", "model.framse: there is no such setting; did you mean model.frames?"),
        ("model.framse=3", "model.framse: there is no such setting; did you mean model.frames?"),
        ("caption=${foo}", "caption: Interpolation key 'foo' not found"),
        ("rank", "cannot read 'rank'"),
    ],
)
def test_bad_input_is_named_with_what_would_be_right(override, said, base):
    found = problems([*base, override])
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("overrides", "meant"),
    [
        (["tau=0.7"], "700"),
        (["tau=1"], "1000"),
        (["sampling_tau=0.7"], "700"),
        (["tau=0", "tau_high=0.9"], "900"),
        (["tau=0", "tau_high=1"], "1000"),
        (["tau=0", "sampling_tau_high=0.8"], "800"),
    ],
)
def test_a_share_of_the_timesteps_is_no_timestep(overrides, meant, base):
    (found,) = problems([*base, *overrides])
    name = overrides[-1].split("=")[0]
    assert found == (f"{overrides[-1]}: no share, but a timestep from 0 to 1000 ({name}={meant} is meant?)")


def test_all_problems_are_listed_at_once(base):
    found = problems([*base, "tau=1001", "rank=0", "projections=[x]", "+foo=1", "+method.bar=2"])
    assert [line.split("=")[0].split(":")[0] for line in found] == [
        "foo",
        "method.bar",
        "tau",
        "rank",
        "projections",
    ]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["video=missing.mp4", *CLIP[1:]], "video=missing.mp4: there is no such file"),
        (["video=.", "edits=[a ball]"], "video= needs caption="),
        (["video=.", "caption=a ball"], "video= needs edits="),
        ([*CLIP, "fps=8", "stride=2"], "fps= and stride= both"),
        (["video=.", "caption=", "edits=[a ball]"], "caption: a caption is empty"),
        (
            ["video=.", f"caption={'a ' * 500}", "edits=[a ball]"],
            "has 500 words; tiny_latte's text encoder takes 120",
        ),
        (["video=.", 'caption=a "red" ball', "edits=[a ball]"], "does not know '\"red\"' in"),
        (["video=.", "caption=a 🙂 ball", "edits=[a ball]"], "does not know '🙂' in 'a 🙂 ball'"),
        (["video=.", "caption=it's a ball, red", "edits=[a ball]"], "does not know 'ball,', \"it's\" in"),
    ],
)
def test_clips_and_captions(overrides, said, base):
    (found,) = problems([*base, *overrides])
    assert said in found


def test_a_real_model_takes_any_words_up_to_its_length(base):
    words = ["model=latte", base[1], "video=.", "edits=['a robot, running: \"fast\" 🙂']"]
    assert load([*words, 'caption=it\'s a dog, on "grass" 🙂']).caption == 'it\'s a dog, on "grass" 🙂'
    (found,) = problems([*words, f"caption={'dog ' * 500}"])
    assert "has 500 words; latte's text encoder takes 120 tokens" in found


def test_capital_letters_are_no_unknown_words(base):
    assert load([*base, "edits=[A Red Ball]"]).edits == ["A Red Ball"]


def test_free_text_reaches_the_job_as_it_was_typed():
    parser = OverridesParser.create()
    for length in range(5):
        for letters in itertools.product("a'\\\", ", repeat=length):
            text = "".join(letters)
            (ready,) = prepared([f"caption={text}"])
            if ready != f"caption={text}":
                assert parser.parse_override(ready).value() == text
    assert prepared(["caption=null", "caption='in quotes'", "tau=3"]) == [
        "caption=null",
        "caption='in quotes'",
        "tau=3",
    ]


def test_a_video_chooses_its_reader(base):
    assert load([*base, *CLIP]).data["path"] == "."
    assert "split" in load(base).data


def test_the_words_of_a_model(base):
    assert vocabulary(load(base).model) == sorted(WORDS)
    with pytest.raises(InputError, match="takes any words"):
        vocabulary(load(["model=latte", base[1]]).model)


def test_a_tokenizer_of_letters_and_parts_of_words_names_the_words(base, model_folder):
    """Each of them is a token, as in a tokenizer of byte pairs; only some are words."""
    file = model_folder / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps({schema.CLOSED_VOCABULARY: ["red", "a", "ball"]}))
    assert vocabulary(load(base).model) == ["a", "ball", "red"]
    (problem,) = problems([*base, *CLIP, "caption=A red ball", "edits=['a blue ball']"])
    assert "edits: tiny_latte does not know 'blue' in" in problem


def test_references_by_number_and_by_name():
    names = ["r0", "r1", "r2"]
    assert select_references(2, names) == ["r0", "r1"]
    assert select_references("r1", names) == ["r1"]
    assert select_references(["r2", "r0"], names) == ["r2", "r0"]
    with pytest.raises(InputError, match="references=4: there are 3"):
        select_references(4, names)
    with pytest.raises(InputError, match="no r3, r4;"):
        select_references(["r3", "r4"], names)


def test_a_probe_takes_enough_references_for_a_boundary(base):
    one, probe = load(base), load([*base, "probe=tampering"])
    assert [wanted_references(each, 76) for each in (one, probe)] == [1, 6]
    assert wanted_references(load([*base, "probe=tampering", "references=2"]), 76) == 2
    clip = load([*base, *CLIP, "probe=tampering"])
    assert wanted_references(clip, 1) == 1


def test_metrics_are_those_that_are_scored():
    from motionexp.metrics.scorer import METRICS

    assert list(METRICS) == list(scoring.METRICS)


def test_settings_are_checked_without_torch(base):
    code = (
        "import sys; from motionexp.cli import main\n"
        "assert main(sys.argv[1:]) == 2\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *base, "tau=-1"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "tau=-1" in result.stderr


def test_auto_is_the_stored_boundary(base):
    cfg = load([*base, "tau=auto", "model.boundary=640", "model.boundary_weights=0123456789ab"])
    assert (cfg.tau, cfg.tau_from) == (640.0, "boundary")
    assert load([*base, "tau=640"]).tau_from == "given"


def test_auto_needs_a_stored_boundary(base):
    with pytest.raises(InputError, match="tau=auto: no boundary is stored"):
        load([*base, "tau=auto", "model.boundary=null"])


@pytest.mark.parametrize("tau", ["500", "auto"])
def test_where_tau_came_from_is_not_for_the_user_to_say(base, tau):
    stored = ["model.boundary=640", "model.boundary_weights=0123456789ab"]
    (problem,) = problems([*base, *stored, f"tau={tau}", "tau_from=boundary"])
    assert problem.startswith("tau_from=boundary: no setting of yours; tau=auto")


@pytest.mark.parametrize(
    "weights", ["''", "null", "0123456789a", "0123456789abc", "0123456789ag", "0123456789AB"]
)
@pytest.mark.parametrize("tau", ["500", "auto"])
def test_a_boundary_says_of_which_weights_it_is(base, weights, tau):
    (problem,) = problems([*base, f"tau={tau}", "model.boundary=640", f"model.boundary_weights={weights}"])
    assert "beside model.boundary, the first 12 hexadecimal digits of weights_hash" in problem


@pytest.mark.parametrize("tau", ["never", "''", "[1]"])
def test_tau_is_a_number_or_auto(base, tau):
    with pytest.raises(InputError, match="tau="):
        load([*base, f"tau={tau}"])


@pytest.mark.parametrize("steps", [5, 25, 1010])
def test_a_probes_steps_fill_every_block(base, steps):
    with pytest.raises(InputError, match=f"probe_steps={steps}: a multiple of 10"):
        load([*base, "probe=tampering", f"probe_steps={steps}"])


def test_a_probe_is_one_of_those_that_there_are(base):
    with pytest.raises(InputError, match="probe=poking: one of tampering, partial_guidance"):
        load([*base, "probe=poking"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("scoring.resize=-1", "scoring.resize=-1: a number of pixels"),
        ("scoring.pairs=some", "scoring.pairs=some: one of consecutive, pairs"),
        ("scoring.tracker=raft", "scoring.tracker=raft: one of lucas_kanade, cotracker"),
        ("scoring.tracker=cotracker", "belong together"),
        ("scoring.tracker_weights=nowhere.safetensors", "belong together"),
        ("scoring.scorer_revision=abc", "are of scoring.scorer"),
        ("metrics=[motion_diversity]", "needs seeds=2 or more"),
        ("scoring=ours", "scoring=ours: one of auto, paper, tgve"),
        ("scoring.clop=x", "did you mean scoring.clip?"),
    ],
)
def test_what_scores_look_through_is_checked(base, override, said):
    assert said in "\n".join(problems([*base, override]))


def test_presets_differ_in_the_pairs_alone_and_names_of_ones_own_go_before_them(base):
    from motionexp.jobs.inputs import scoring_models
    from motionexp.metrics.scorer import TGVE_MODELS, ScoringModels

    def models(*overrides: str) -> ScoringModels:
        return scoring_models(load([*base, *overrides]).scoring, closed_vocabulary=True)

    assert models() == ScoringModels()
    for preset, pairs in (("tgve", "pairs"), ("paper", "consecutive")):
        assert models(f"scoring={preset}") == TGVE_MODELS
        assert load([*base, f"scoring={preset}"]).scoring.pairs == pairs
    own = models("scoring=tgve", "scoring.clip=ViT-B-32/openai", "scoring.resize=0")
    assert (own.clip, own.resize, own.scorer) == ("ViT-B-32/openai", 0, TGVE_MODELS.scorer)
