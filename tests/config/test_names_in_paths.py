"""Settings that become a part of a path are names: none leads elsewhere."""

from dataclasses import replace

import pytest

from motionexp.config.checks import check
from motionexp.config.compose import load
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError


@pytest.fixture(scope="module")
def default() -> JobConfig:
    return load()


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/a", "a\0b", ".a", "a b", "a\n"])
def test_a_model_s_name_is_a_folder_s(name, default):
    (problem,) = check(replace(default, model=replace(default.model, name=name)))
    assert problem.startswith("model.name=")


@pytest.mark.parametrize("name", ["mine", "a..b", "model-1.3b_x", "5"])
def test_other_names_are_taken(name, default):
    assert check(replace(default, model=replace(default.model, name=name))) == []


def test_a_revision_leads_nowhere_and_no_text_holds_nul(default):
    for changes, named in (
        ({"revision": "../x"}, "model.revision="),
        ({"revision": "/x"}, "model.revision="),
        ({"path": "a\0b"}, "model.path="),
    ):
        (problem,) = check(replace(default, model=replace(default.model, **changes)))
        assert problem.startswith(named)
    for revision in ("refs/pr/2", "451f4fe+449d899", None):
        assert check(replace(default, model=replace(default.model, revision=revision))) == []


@pytest.mark.parametrize("option", ["family/latte", "../model/latte", "'../model/latte'"])
def test_an_option_is_a_name_and_no_path(option):
    with pytest.raises(InputError, match=r"^model=.*: one of "):
        load([f"model={option}"])
