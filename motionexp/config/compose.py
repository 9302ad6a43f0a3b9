"""From `conf/` and overrides to a checked JobConfig. Imports no torch."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from motionexp.config.checks import check
from motionexp.config.schema import JobConfig, ModelConfig
from motionexp.config.scoring import ScoringConfig
from motionexp.errors import InputError
from motionexp.files import ROOT

CONF = ROOT / "conf"
EXPERIMENTS = ROOT / "experiments"
GROUPS = ("model", "method", "data", "scoring")
# Of groups whose options share one schema; any other option's file is its own.
SCHEMAS: Mapping[str, type] = {"model": ModelConfig, "scoring": ScoringConfig}
FREE_TEXT = ("caption", "negative_prompt", "video", "adapter", "output",
             "data.path", "data.captions", "data.prompts", "folder", "system")  # fmt: skip
EXPECTED = {
    "converted to Integer": "a whole number",
    "converted to Float": "a number",
    "is not a ListConfig": 'a list: [one,two], and of captions \'["one","two"]\'',
    "is not a valid bool": "true or false",
    "is not Optional": "null is no value here",
}

ConfigStore.instance().store(name="schema", node=JobConfig)
OmegaConf.register_new_resolver(
    # An adapter carries its window; only a number given by hand overrides that.
    "window_of",
    lambda adapter, default: default if adapter is None else None,
    replace=True,
)


def load(overrides: Sequence[str] = ()) -> JobConfig:
    """The checked settings of `python run.py OVERRIDES`, for notebooks, scripts and tests.

    Raises:
        InputError: names everything that is wrong.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return read_job(prepared(overrides))


def read_job(overrides: Sequence[str]) -> JobConfig:
    """As `load`, inside a Hydra that is initialised, with overrides as Hydra itself splits them for a job."""
    try:
        composed = compose("config", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(explain(error)) from error
    own = [str(key) for key in composed if key != "hydra"]
    return read(OmegaConf.masked_copy(composed, own), composed.hydra.runtime.choices)


def read(composed: DictConfig, choices: Mapping[str, str]) -> JobConfig:
    """The checked settings in what Hydra composed for a job; `choices` says which option each group has.

    Raises:
        InputError: lists every problem: unknown keys (`+key` gets past Hydra), and all that `check` finds.
    """
    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except OmegaConfBaseException as error:
        raise InputError(explain(error)) from error
    unknown = list(_unknown_keys(plain, choices))
    _settle_tau(plain)
    # Ids and rows tell 4 from 4.0, and alpha=${rank} gives the former.
    if "alpha" in plain["method"]:
        plain["method"]["alpha"] = _floats(plain["method"]["alpha"])
    plain["soft_window"] = _floats(plain["soft_window"])
    for path in unknown:
        *parents, key = path.split(".")
        del (plain[parents[0]] if parents else plain)[key]
    cfg = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(JobConfig), plain))
    assert isinstance(cfg, JobConfig)
    problems = [*map(_no_such_setting, unknown), *check(cfg)]
    if problems:
        raise InputError("\n".join(problems))
    return cfg


def _settle_tau(plain: dict[str, Any]) -> None:
    """Put the stored boundary in the place of `tau=auto`, and make every number a float, as ids have it.

    Raises:
        InputError: the model's file has no boundary, or `tau_from` was given.
    """
    if plain["tau_from"] != "given":
        raise InputError(
            f"tau_from={plain['tau_from']}: no setting of yours; tau=auto takes the model's stored boundary"
        )
    if plain["tau"] == "auto":
        model = plain["model"]
        if model.get("boundary") is None:
            raise InputError(
                f"tau=auto: no boundary is stored for model={model['name']}; run its probes"
                " (probe=tampering) and put what they find into model.boundary, or give a number"
            )
        plain |= {"tau": model["boundary"], "tau_from": "boundary"}
    if isinstance(plain["tau"], int | float) and not isinstance(plain["tau"], bool):
        plain["tau"] = float(plain["tau"])


def _floats(value: Any) -> Any:
    """Whole numbers as floats, in lists too; all else as it is."""
    if isinstance(value, list):
        return [_floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _unknown_keys(plain: Mapping[str, Any], choices: Mapping[str, str]) -> Iterator[str]:
    yield from (key for key in plain if key not in JobConfig.__dataclass_fields__)
    for group in GROUPS:
        known = group_keys(group, choices[group])
        yield from (f"{group}.{key}" for key in plain[group] if key not in known)


def group_keys(group: str, option: str) -> set[str]:
    """The settings of a group's option: those of the group's schema, or else what its file says."""
    if group in SCHEMAS:
        return {each.name for each in fields(SCHEMAS[group])}
    file = cast(DictConfig, OmegaConf.load(CONF / group / f"{option}.yaml"))
    return {str(key) for key in file.get(group, file)}


def prepared(overrides: Sequence[str]) -> list[str]:
    """Overrides of a single run as Hydra wants them: free text in quotes, `data=clip` where there is a video.

    Hydra's own signs (commas, quotes, brackets) mean nothing in a caption or a path, so that people need not
    know how to escape them. Text that is in quotes already, and `null`, stay as they are.
    """
    for group in GROUPS:
        if f"{group}=null" in overrides or any(each.startswith(f"~{group}") for each in overrides):
            raise InputError(f"{group}: one of {', '.join(options(group))}")
    ready = [_quoted(each) for each in overrides]
    has_video = any(each.startswith("video=") and each != "video=null" for each in ready)
    if has_video and not any(each.startswith("data=") for each in ready):
        ready.append("data=clip")
    return ready


def _quoted(override: str) -> str:
    key, _, value = override.partition("=")
    if key not in FREE_TEXT or value == "null" or re.fullmatch(r"""(['"]).*\1""", value, re.DOTALL):
        return override
    # Hydra reads a backslash as itself, except in front of a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"{key}='{escaped}'"


def explain(error: Exception) -> str:
    """What Hydra or OmegaConf has to say about the user's input, in the user's terms."""
    text = str(error)
    if missing := re.match(r"Could not override '([^']+)'", text):
        return _no_such_setting(missing[1])
    if isinstance(error, MissingConfigException) and (found := re.search(r"find '(\w+)/([^']*)'", text)):
        return f"{found[1]}={found[2]}: one of {', '.join(options(found[1]))}"
    if isinstance(error, OverrideParseException):
        return (
            f"cannot read {error.override!r}: it should be key=value, and text with commas, quotes or other"
            " signs needs quotes of its own, for instance edits='[\"a dog, running\"]'"
        )
    reason = str(error.__cause__ or error)
    where = re.match(r"Error merging override (.*)", text, re.DOTALL) or re.search(r"full_key: (.+)", reason)
    expected = next((right for sign, right in EXPECTED.items() if sign in reason), reason.splitlines()[0])
    return f"{where[1]}: {expected}" if where else text


def options(group: str) -> list[str]:
    """The options of a group of `conf/`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _no_such_setting(path: str) -> str:
    known = set(JobConfig.__dataclass_fields__)
    group = path.rpartition(".")[0]
    if group in GROUPS:
        known = {f"{group}.{key}" for option in options(group) for key in group_keys(group, option)}
    close = difflib.get_close_matches(path, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{path}: there is no such setting{hint} (`python run.py --help` lists all)"
