"""Recipes of models, and settings of sampling that do not suit a model, told before torch is imported."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from motionexp.config.compose import load
from motionexp.config.effects import check_effects
from motionexp.config.ids import adapter_id, sample_id
from motionexp.config.job_settings import row_settings
from motionexp.config.options import options
from motionexp.config.schema import RECIPE_SETTINGS
from motionexp.errors import InputError
from motionexp.results.selection import changed_settings

PAPERS = {"modelscope", "show1", "latte", "cogvideox_2b", "cogvideox_5b"}
MODELS = [name for name in options("model") if not name.startswith("tiny_")]
# Steps, sampler, shift, spacing, guidance, and whether guidance is dynamic.
RECIPES = {
    ("wan_1_3b", "owners"): (50, "unipc", 8, None, 6, False),
    ("wan_1_3b", "diffusers"): (50, "unipc", 3, None, 5, False),
    ("wan_14b", "owners"): (50, "unipc", 5, None, 5, False),
    ("wan2_2_14b", "owners"): (40, "unipc", 12, None, [[0, 3], [875, 4]], False),
    ("wan2_2_14b", "mlperf"): (20, "unipc", 3, None, [[0, 3], [875, 4]], False),
    ("hunyuan", "owners"): (50, "ddim", 7, None, 1, False),
    ("hunyuan", "diffusers"): (30, "ddim", 7, None, 1, False),
    ("ltx", "owners"): (40, "ddim", None, None, 3, False),
    ("mochi", "owners"): (64, "ddim", 1, None, 6, False),
    ("mochi", "diffusers"): (64, "ddim", 1, None, 4.5, False),
    ("cogvideox_2b", "owners"): (50, "ddim", None, None, 6, False),
    ("cogvideox_5b", "owners"): (50, "dpmpp_2m", None, "trailing", 6, True),
    ("cogvideox_5b", "papers"): (50, "ddim", None, None, 6, False),
    ("animatediff", "owners"): (25, "ddim", None, "leading", 8, False),
    ("latte", "owners"): (50, "ddim", None, None, 7.5, False),
    ("latte", "papers"): (50, "ddim", None, None, 9, False),
    ("zeroscope", "owners"): (40, "ddim", None, None, 9, False),
    ("show1", "owners"): (75, "dpmpp_2m", None, None, 9, False),
    ("show1", "papers"): (50, "ddim", None, None, 9, False),
    ("modelscope", "papers"): (50, "ddim", None, None, 9, False),
}


job = cache(lambda *words: load(words))


@pytest.mark.parametrize(("model", "recipe"), RECIPES)
def test_a_recipe_sets_all_of_sampling(model: str, recipe: str) -> None:
    cfg = job(f"model={model}", f"recipe={recipe}")
    shown = cfg.steps, cfg.sampler, cfg.shift, cfg.timestep_spacing, cfg.guidance_scale, cfg.dynamic_guidance
    assert shown == RECIPES[model, recipe]


def test_the_owners_further_guidance_and_empty_prompt() -> None:
    def further(*words: str) -> tuple[Any, ...]:
        cfg = job(*words)
        return cfg.stg_scale, cfg.stg_blocks, cfg.guidance_rescale, cfg.force_zeros_for_empty_prompt

    assert further("model=ltx") == (1.0, [19], 0.7, False)
    assert further("model=mochi") == (0.0, None, 0.0, True)
    for words in (("model=ltx", "recipe=diffusers"), ("model=mochi", "recipe=diffusers"), ()):
        assert further(*words) == (0.0, None, 0.0, False)
    assert further("model=ltx", "stg_blocks=[3,14]") == (1.0, [3, 14], 0.7, False)


def test_single_settings_come_on_top() -> None:
    cfg = job("model=wan_1_3b", "recipe=owners", "steps=7", "guidance_scale=2.5", "negative_prompt=bad")
    shown = cfg.steps, cfg.guidance_scale, cfg.negative_prompt, cfg.sampler, cfg.shift
    assert shown == (7, 2.5, "bad", "unipc", 8)


def test_owners_are_the_default_but_where_a_paper_tuned_the_model() -> None:
    recipes = {name: job(f"model={name}").recipe for name in MODELS}
    assert {name for name, recipe in recipes.items() if recipe == "papers"} == PAPERS
    assert set(recipes.values()) == {"papers", "owners"}
    assert job("model=ltx").negative_prompt.startswith("worst quality")
    assert len(job("model=wan_14b").negative_prompt) > 100
    assert job("model=wan_1_3b", "recipe=diffusers").negative_prompt == ""


WRONG = {
    "recipe=owners": "recipe=owners: .*tiny_latte",
    "model=wan_1_3b recipe=papers": "recipe=papers: .*owners, diffusers",
    "model=wan_1_3b recipe=null": "recipe=null: .*owners, diffusers",
    "model=wan_1_3b shift=0": "shift=0: a number above 0",
    "model=wan_1_3b shift=-3": "shift=-3: ",
    "model=wan_1_3b shift=inf": "shift=inf: ",
    "model=wan_1_3b shift=abc": "shift",
    "shift=3": "shift=3: of flow matching alone",
    "model=cogvideox_5b shift=3": "shift=3: of flow matching alone",
    "sampler=heun": "sampler=heun: .*dpmpp_2m",
    "timestep_spacing=even": "timestep_spacing=even: tiny_latte",
    "model=mochi timestep_spacing=leading": "timestep_spacing=leading: mochi",
    "sampler=unipc eta=0.5": "sampler=unipc: .*eta=0.5",
    "sampler=euler eta=0.5": "sampler=euler: .*eta=0.5",
    "sampling_tau=70%": r"sampling_tau=70%: .*not a share \(700\?\)",
    "tau_high=70%": r"tau_high=70%: .*not a share \(700\?\)",
    "tau=0 soft_window=[[0,0],[1,1]]": "soft_window=.*not shares",
    "soft_window=[[0.3,0],[1,1]]": "soft_window=.*not shares",
    "sampler=dpmpp_2m method=moft": "sampler=dpmpp_2m: method=moft",
    "model=wan_1_3b method=moft": "sampler=unipc: method=moft .* take sampler=ddim",
    "sampler=dpmpp_2m inverted_noise=0.5": "sampler=dpmpp_2m: inverted_noise=",
    "model=hunyuan dynamic_guidance=true": "dynamic_guidance=true: .*hunyuan",
    "guidance_scale=0.5": "guidance_scale=0.5: a number from 1",
    "guidance_scale=abc": "guidance_scale=abc: a number from 1",
    "guidance_scale=[]": r"guidance_scale=\[\]: ",
    "guidance_scale=[3,4]": r"guidance_scale=\[3.0, 4.0\]: .*pairs",
    "guidance_scale=[[875,4]]": "timesteps ascend from 0",
    "guidance_scale=[[0,3],[875,4],[800,2]]": "timesteps ascend from 0",
    "guidance_scale=[[0,3],[0.875,4]]": "not shares",
    "guidance_scale=[[0,0.5],[875,4]]": "scales are from 1",
    "guidance_scale=[[0,3],[875,4]] dynamic_guidance=true": "dynamic_guidance=true: ",
    "stg_scale=-1 stg_blocks=[1]": "stg_scale=-1: a number from 0",
    "stg_scale=inf stg_blocks=[1]": "stg_scale=inf: ",
    "stg_scale=1": "stg_scale=1: needs stg_blocks=",
    "stg_scale=1 stg_blocks=[]": r"stg_blocks=\[\]: numbers of blocks from 0",
    "stg_scale=1 stg_blocks=[-1]": r"stg_blocks=\[-1\]: numbers of blocks from 0",
    "stg_scale=1 stg_blocks=[1,1]": r"stg_blocks=\[1, 1\]: .*each once",
    "stg_scale=1 stg_blocks=1": "stg_blocks=1: a list",
    "+model.recipes={mine:{stg_blocks:1}} recipe=mine": "stg_blocks: a list",
    "guidance_rescale=1.5": "guidance_rescale=1.5: a number from 0 to 1",
    "guidance_rescale=-0.1": "guidance_rescale=-0.1: a number from 0 to 1",
    "force_zeros_for_empty_prompt=true": "force_zeros_for_empty_prompt=true: .*not tiny_latte",
    "model=ltx force_zeros_for_empty_prompt=true": "force_zeros_for_empty_prompt=true: .*not ltx",
    "+model.recipes={mine:{colour:1}}": "model.recipes.mine.colour: no setting of a recipe",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_does_not_suit_the_model_is_named(words: str) -> None:
    with pytest.raises(InputError, match=WRONG[words]):
        load(words.split())


def test_a_recipe_of_one_s_own_and_settings_without_effect() -> None:
    cfg = load(["+model.recipes={fast:{steps:5,sampler:unipc}}", "recipe=fast"])
    assert (cfg.steps, cfg.sampler, cfg.guidance_scale) == (5, "unipc", 2.0)
    with pytest.raises(InputError, match=r"model\.steps=: has no effect"):
        check_effects([(load(["model=zeroscope", "model.steps=30"]), {"model.steps"})])
    with pytest.raises(InputError, match="sampler=: has no effect with probe="):
        check_effects([(load(["probe=tampering", "sampler=unipc"]), {"sampler"})])


def test_ids_hold_what_changes_a_sample_and_nothing_at_its_default() -> None:
    def ids(*words: str) -> tuple[str, str]:
        cfg = load(["model=wan_1_3b", "recipe=diffusers", "model.shift=null", *words])
        cfg = replace(cfg, shift=None if "shift" not in " ".join(words) else cfg.shift)
        adapter = adapter_id(cfg, weights_hash="w", precision="fp32", reference_hash="r")
        return adapter, sample_id(cfg, adapter, caption="a", index=0)

    adapter, sample = ids()
    for words in (
        "shift=8",
        "timestep_spacing=even",
        "guidance_scale=[[0,3],[875,4]]",
        "negative_prompt=bad",
        "stg_scale=1 stg_blocks=[1]",
        "guidance_rescale=0.5",
    ):
        changed = ids(*words.split())
        assert changed[0] == adapter, "training does not see it"
        assert changed[1] != sample
    assert ids("model.recipe=owners", "recipe=diffusers") == (adapter, sample)
    # It has no effect without stg_scale.
    assert ids("stg_blocks=[1]") == (adapter, sample)
    assert row_settings(job("stg_blocks=[1]")) == row_settings(job())


def test_rows_hold_the_defaults_of_the_model_s_own_recipe_and_no_other() -> None:
    default, changed = (
        row_settings(job("model=wan_1_3b", f"recipe={name}")) for name in ("owners", "diffusers")
    )
    assert "recipes" not in default["model"]
    assert changed_settings(default, "lora") == {}
    assert changed_settings(changed, "lora") == {"shift": 3.0, "guidance_scale": 5.0, "negative_prompt": ""}
    # A row from before these settings.
    before = row_settings(job("model=tiny_latte"))
    for name in ({*RECIPE_SETTINGS} - {"steps", "guidance_scale"}) | {"recipe"}:
        del before["model"][name]
    assert changed_settings(before, "lora") == {}
