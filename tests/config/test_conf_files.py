"""What conf/ holds: every option composes, and its files say what is asked of them."""

import re
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from motionexp.config.compose import CONF, GROUPS, SCHEMAS, load, options
from motionexp.config.schema import ModelConfig

OPTIONS = [(group, option) for group in GROUPS for option in options(group)]
SD_1_5 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
REAL = {
    "modelscope": ("ali-vilab/text-to-video-ms-1.7b", 700),
    "zeroscope": ("cerspense/zeroscope_v2_576w", 700),
    "show1": ("showlab/show-1-base", 700),
    "latte": ("maxin-cn/Latte-1", 700),
    "cogvideox_2b": ("zai-org/CogVideoX-2b", 950),
    "cogvideox_5b": ("zai-org/CogVideoX-5b", 950),
    "animatediff": (f"{SD_1_5}+guoyww/animatediff-motion-adapter-v1-5-3", 700),
    "wan_1_3b": ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 700),
    "wan_14b": ("Wan-AI/Wan2.1-T2V-14B-Diffusers", 700),
    "wan2_2_14b": ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", 700),
    "ltx": ("Lightricks/LTX-Video", 700),
    "hunyuan": ("hunyuanvideo-community/HunyuanVideo", 700),
    "mochi": ("genmo/mochi-1-preview", 700),
}
MOVING = {"show1": "refs/pr/2"}
CLIP = ["video=.", "caption=a red ball", "edits=[a blue ball]"]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group, option, base):
    cfg = load([*base, f"{group}={option}", *(CLIP if option == "clip" else [])])
    assert getattr(cfg, group)


def test_every_file_in_conf_is_an_option_that_was_composed():
    roots = {Path("config.yaml"), Path("score.yaml")}
    files = {path.relative_to(CONF) for path in CONF.rglob("*.yaml")} - roots
    assert files == {Path(group) / f"{option}.yaml" for group, option in OPTIONS}


@pytest.mark.parametrize("option", options("model"))
def test_a_models_file_says_all_that_the_schema_asks(option):
    assert set(OmegaConf.load(CONF / "model" / f"{option}.yaml")) == {
        each.name for each in fields(ModelConfig)
    }


def test_every_real_model_is_in_the_table():
    assert set(REAL) == {option for option in options("model") if not option.startswith("tiny_")}


@pytest.mark.parametrize("name", REAL)
def test_a_real_model_s_hub_id_revision_and_default_tau(name):
    model = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    assert (model.path, model.default_tau) == REAL[name]
    if name in MOVING:
        assert model.revision == MOVING[name]
    else:
        assert re.fullmatch(r"[0-9a-f]{40}(\+[0-9a-f]{40})?", model.revision or "")
        assert model.revision.count("+") == model.path.count("+")


@pytest.mark.parametrize(("group", "option"), [pair for pair in OPTIONS if pair[0] not in SCHEMAS])
def test_a_target_takes_what_its_file_gives(group, option, base):
    cfg = load([*base, f"{group}={option}", *(CLIP if option == "clip" else [])])
    arguments = dict(getattr(cfg, group))
    taken = signature(get_object(arguments.pop("_target_"))).parameters
    assert set(arguments) <= set(taken)


def test_a_model_s_target_is_public():
    for option in options("model"):
        target = OmegaConf.load(CONF / "model" / f"{option}.yaml")["_target_"]
        assert callable(get_object(target))
        assert not any(part.startswith("_") for part in target.split("."))
