"""What conf/ holds: every option composes, and its files say what is asked of them."""

from inspect import signature
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from motionexp.config import launcher
from motionexp.config.compose import load
from motionexp.config.launcher import GROUP, KINDS, load_launcher
from motionexp.config.options import CONF, GROUPS, SCHEMAS, options

OPTIONS = [(group, option) for group in GROUPS for option in options(group)]
CLIP = ["video=.", "caption=a red ball", "edits=[a blue ball]"]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_its_public_target_takes_what_the_file_gives(group, option, base):
    settings = getattr(load([*base, f"{group}={option}", *(CLIP if option == "clip" else [])]), group)
    if group not in SCHEMAS:
        parameters = signature(get_object(settings["_target_"])).parameters
        assert set(settings) - {"_target_"} <= set(parameters)
    if group == "model":
        assert callable(get_object(settings._target_))
        assert "._" not in settings._target_


def includes(path):
    """The files below a YAML file's defaults list, the first to be read first."""
    listed = [include.removesuffix("@_here_") for include in OmegaConf.load(path).get("defaults", [])]
    files = [path.parent / f"{include}.yaml" for include in listed if include != "_self_"]
    return [below for file in files for below in (*includes(file), file)]


def defaults_of(path):
    return OmegaConf.merge({}, *(OmegaConf.load(file) for file in includes(path)), {"defaults": None})


def test_every_file_in_conf_is_an_option_that_was_composed():
    roots = {Path("config.yaml"), Path("score.yaml")}
    files = {path for path in CONF.rglob("*.yaml") if path.relative_to(CONF) not in roots}
    families = {path for option in options("model") for path in includes(CONF / "model" / f"{option}.yaml")}
    launchers = {CONF / GROUP / f"{option}.yaml" for option in options(GROUP)}
    assert files == {CONF / group / f"{option}.yaml" for group, option in OPTIONS} | families | launchers


def test_every_launcher_has_a_file(monkeypatch):
    monkeypatch.setattr(launcher, "_problems", lambda _: [])  # its package may not be installed
    loaded = [load_launcher([f"{GROUP}={option}"]) for option in options(GROUP)]
    assert {type(settings) for settings in loaded} == {*KINDS.values()}
    assert [settings.name for settings in loaded] == options(GROUP)


@pytest.mark.parametrize("option", options("model"))
def test_a_models_file_repeats_nothing_of_its_family(option):
    path = CONF / "model" / f"{option}.yaml"
    inherited, settings = defaults_of(path), OmegaConf.load(path)
    repeated = {key for key, value in settings.items() if key in inherited and inherited[key] == value}
    assert repeated <= {"default_tau"}  # a tau that was chosen for the model may happen to be the family's
