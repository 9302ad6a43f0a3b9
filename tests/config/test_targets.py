"""Classes under `_target_`: whose are allowed, and how their constructors' types are read."""

import pytest
from omegaconf import OmegaConf

from motionexp.cli import SweepCallback, main
from motionexp.config import targets
from motionexp.config.compose import load
from motionexp.errors import InputError
from motionexp.jobs.sweeps import sweeps_of
from motionexp.results.layout import Layout

PLUGIN = """
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import a_package_that_is_not_installed
from motionexp.methods.lora import LoRA

Kind = Literal["soft", "hard"]

class Mine(LoRA):
    def __init__(self, backbone, window, *, rank: int = 2, strength: float = 1.0, kind: "Kind" = "soft",
                 names: Sequence[str] = (), limit: int | None = None, file: str | Path = "",
                 other: dict = {}):
        pass

class Inherited(Mine):
    pass

@dataclass(frozen=True)
class Base:
    path: str | Path
    letters: ClassVar[str] = "abc"

@dataclass(frozen=True)
class Suite(Base):
    sizes: list[int] = field(default_factory=list)
    seen: int = field(init=False, default=0)

class Open:
    def __init__(self, first: bool, **more: object):
        pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    folder = tmp_path / "packages" / "my_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "mine.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(folder.parent)
    return "my_package.mine"


def wrong(package: str, name: str, **values: object) -> list[str]:
    constructor = targets.signature(f"{package}.{name}", ["my_package"])
    node = {"_target_": name, **values}
    return list(targets.node_problems("method", node, constructor, ("backbone", "window")))


@pytest.mark.parametrize("name", ["Mine", "Inherited"])
@pytest.mark.parametrize(
    ("key", "right", "refused", "named"),
    [
        ("rank", 3, "abc", "method.rank=abc: a whole number"),
        ("rank", 3, True, "method.rank=True"),
        ("strength", 2, "x", "method.strength=x: a number"),
        ("kind", "hard", "firm", "method.kind=firm: one of soft, hard"),
        ("names", ["a"], [1], "method.names=[1]: a list, where an item is text"),
        ("names", [], "a", "method.names=a: a list"),
        ("limit", None, 0.5, "method.limit=0.5: a whole number or null"),
        ("file", "a", 3, "method.file=3: text or a path"),
        ("other", 3, None, None),
    ],
)
def test_values_are_of_the_constructors_types(package, name, key, right, refused, named):
    assert wrong(package, name, **{key: right}) == []
    problems = wrong(package, name, **{key: refused})
    assert len(problems) == bool(named)
    assert all(problem.startswith(named) for problem in problems)


def test_a_dataclass_takes_its_fields_and_those_of_its_bases(package):
    parameters = targets.signature(f"{package}.Suite", ["my_package"]).parameters
    assert {name: about.required for name, about in parameters.items()} == {"path": True, "sizes": False}
    assert wrong(package, "Suite") == ["method.path: missing, and Suite needs it"]
    assert wrong(package, "Suite", path="x", sizes=["a"])[0].startswith("method.sizes=['a']")


def test_a_constructor_with_keywords_takes_any_more(package):
    assert targets.signature(f"{package}.Open", ["my_package"]).is_open
    assert wrong(package, "Open", first=True, second=3) == []


def test_a_plugin_is_only_allowed_by_name_and_never_imported(package, base):
    mine = [*base, f"method._target_={package}.Mine"]
    with pytest.raises(InputError, match=r"method\._target_=my_package\.mine\.Mine.*plugins=\[my_package\]"):
        load(mine)
    cfg = load(["plugins=[my_package]", *mine, "+method.strength=2"])
    # LoRA's values from the option's file stay where the class takes them, and are left out where not.
    assert cfg.method == {"_target_": f"{package}.Mine", "rank": 4, "strength": 2.0}
    assert isinstance(cfg.method["strength"], float)
    for value, named in (("strong=2", r"strong: .*method\.strength\?"), ("strength=x", "strength=x")):
        with pytest.raises(InputError, match=rf"method\.{named}"):
            load(["plugins=[my_package]", *mine, f"+method.{value}"])


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_an_option_s_file_cannot_name_plugins(package, base, tmp_path, flags, capsys):
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "theirs.yaml").write_text(
        f"# @package _global_\nplugins: [my_package]\nmethod:\n  _target_: {package}.Mine\n"
    )
    with pytest.raises(SystemExit, match="2"):
        raise SystemExit(main(["--config-dir", str(tmp_path / "conf"), *base, "method=theirs", *flags]))
    assert "plugins" in capsys.readouterr().err


def test_a_sweeper_s_parameters_cannot_name_plugins(capsys):
    hydra = {"sweeper": {"params": {"plugins": "[my_package]"}}, "overrides": {"task": []}}
    with pytest.raises(SystemExit, match="2"):
        SweepCallback().on_multirun_start(OmegaConf.create({"hydra": hydra}))
    assert "plugins" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["++plugins=[x]", "hydra/launcher=x", "--config-dir=x"])
@pytest.mark.parametrize("key", ["sweep", "paper"])
def test_a_line_of_an_experiment_cannot_run_other_code(key, word):
    lines = {"sweep": [], "paper": [], key: [f"model=latte {word}"]}
    layout = Layout("?", "nothing", rows="", select={}, settings={}, tables=[], **lines)
    with pytest.raises(InputError, match=f"line 1 of `{key}`"):
        sweeps_of(layout, "toy", ["model=latte"])
