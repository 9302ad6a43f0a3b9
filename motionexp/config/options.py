"""The groups of `conf/`, their options, and the names of their settings. Imports no torch."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from motionexp.config import targets
from motionexp.config.schema import ModelConfig, TrainerConfig
from motionexp.config.scoring import ScoringConfig
from motionexp.config.settings import settings_in
from motionexp.config.yaml_file import read_yaml
from motionexp.files import ROOT

CONF = ROOT / "conf"
EXPERIMENTS = ROOT / "experiments"
GROUPS = ("model", "method", "data", "scoring")
# What has settings of its own within it, by a schema; the other groups name a class under `_target_`.
SCHEMAS: Mapping[str, type] = {"model": ModelConfig, "scoring": ScoringConfig, "trainer": TrainerConfig}
GIVEN_BY_PROGRAM: Mapping[str, tuple[str, ...]] = {"method": ("backbone", "window"), "data": ()}


def options(group: str) -> list[str]:
    """The options of a group of `conf/`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def option_file(group: str, option: str, folders: Sequence[Path] = (CONF,)) -> dict[str, Any]:
    """What the option's file in the first of the folders that has one says of its group; else nothing."""
    paths = (folder / group / f"{option}.yaml" for folder in folders)
    path = next((path for path in paths if path.is_file()), None)
    content = {} if path is None else _content(path, path.stat().st_mtime_ns)
    return dict(content.get(group, content))


@cache
def _content(path: Path, changed: int) -> Mapping[str, Any]:
    """The content of a file of `conf/` as it was last changed at that time."""
    return read_yaml(path) or {}


@cache
def method_defaults(method: str) -> Mapping[str, Any]:
    """The settings of a job, apart from `method`, whose defaults the file of a method in `conf/` replaces."""
    path = CONF / "method" / f"{method}.yaml"
    content = (read_yaml(path) or {}) if path.is_file() else {}
    return {name: value for name, value in content.items() if name != "method" and "method" in content}


def keys_of(group: str) -> set[str]:
    """The names of a group's settings: those of its schema, or all that the classes of its options take."""
    if group in SCHEMAS:
        return set(settings_in(SCHEMAS[group]))
    names = {name for option in options(group) for name in parameters_of(group, option)}
    return names.difference(GIVEN_BY_PROGRAM[group])


def parameters_of(group: str, option: str) -> Mapping[str, targets.Parameter]:
    """The parameters of the class that an option of `conf/` names, by their names."""
    return targets.signature(option_file(group, option)["_target_"]).parameters
