"""From `conf/` and overrides to a checked JobConfig. Imports no torch."""

import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from motionexp.config import renames, targets
from motionexp.config.checks import check
from motionexp.config.command_line import as_values, is_text, override_key, prepared, unreadable
from motionexp.config.config_dir import EXAMPLE
from motionexp.config.options import CONF, GIVEN_BY_PROGRAM, GROUPS, SCHEMAS, keys_of, option_file, options
from motionexp.config.schema import JobConfig
from motionexp.config.settings import LARGEST, check_lists, settings_in, value_problems
from motionexp.errors import InputError, nearest, one_of

# Where this package has the classes that a group's `_target_` may name.
ROOMS = {"method": "motionexp.methods", "data": "motionexp.data", "model": "motionexp.backbones"}
ONE_AT_A_TIME = threading.Lock()
MOST_KEPT = 64
"""Compositions and words that a reader keeps, at most."""
RENAMED = {**renames.SETTINGS, **renames.OPTIONS}
EXPECTED = {
    "converted to Integer": "a whole number",
    "converted to Float": "a number",
    "is not a ListConfig": 'a list: [one,two], and of captions \'["one","two"]\'',
    "is not a valid bool": "true or false",
    "is not Optional": "null is not allowed",
    "is not a subclass": "it has settings within it, and no value; write NAME.SETTING=VALUE",
}

ConfigStore.instance().store(name="schema", node=JobConfig)
# An adapter carries its window; only a number given by hand overrides that.
OmegaConf.register_new_resolver(
    "window_of", lambda adapter, default: default if adapter is None else None, replace=True
)


def _from_recipe(name: str, *, _root_: DictConfig) -> Any:
    """A setting of the recipe that is chosen, or else of the model's file."""
    model = _root_.model
    # A name that the model has not is refused with all other problems.
    chosen = (model.get("recipes") or {}).get(_root_.recipe or "", {})
    return chosen[name] if name in chosen else model[name]


OmegaConf.register_new_resolver("from_recipe", _from_recipe, replace=True)


def load(overrides: Sequence[str] = ()) -> JobConfig:
    """The checked settings of `python run.py OVERRIDES`, for notebooks, scripts and tests.

    Raises:
        InputError: names everything that is wrong.
    """
    # Hydra has one state for all threads.
    with ONE_AT_A_TIME, initialize_config_dir(str(CONF), version_base="1.3"):
        words = prepared(overrides)
        return job_reader(words).read(words)


def read_job(overrides: Sequence[str]) -> JobConfig:
    """As `load`, inside a Hydra that is initialised, with overrides as Hydra itself splits them for a job."""
    return read(*_composed(overrides))


def _composed(overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
    """The settings that Hydra composes, and its node `hydra`. Raises InputError."""
    try:
        composed = compose("config", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(explain(error)) from error
    hydra = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    return composed, hydra


def job_reader(overrides: Sequence[str]) -> "JobReader":
    """A reader for jobs with these overrides, among which are those that name folders of options.

    The reader of `conf/` alone is kept for later jobs until a file there changes.
    """
    folders = [word for word in overrides if word.startswith("hydra.searchpath=")]
    files = [(str(path), path.stat()) for path in CONF.rglob("*.yaml")]
    state = tuple((path, about.st_mtime_ns, about.st_size) for path, about in files)
    return JobReader(folders) if folders else _kept_reader(state)


@lru_cache(maxsize=1)
def _kept_reader(state: object) -> "JobReader":
    return JobReader(())


class JobReader:
    """Reads jobs, inside a Hydra that is initialised.

    Hydra composes jobs with the same options of groups once, which takes most of the time. The values in
    which such jobs differ are set in a copy, as Hydra sets them.

    Args:
        folders: the overrides that name folders of options; jobs are read with them.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = list(folders)
        self._parser = OverridesParser.create()
        self._value = lru_cache(MOST_KEPT)(self._parsed_value)
        self._is_group = lru_cache(MOST_KEPT)(self._has_options)
        self._composition = lru_cache(MOST_KEPT)(self._new_composition)

    def read(self, overrides: Sequence[str]) -> JobConfig:
        """As `read_job`."""
        # A value stays before a later word that adds or removes what it may be a value of.
        changes = [number for number, word in enumerate(overrides) if word.startswith(("+", "~"))]
        first = max(changes, default=-1) + 1
        values = [value for word in overrides[first:] if (value := self._value(word))]
        choices = [word for word in overrides[first:] if not self._value(word)]
        if composition := self._composition((*overrides[:first], *choices)):
            settings, hydra = deepcopy(composition[0]), composition[1]
            # Where an update fails, Hydra says what is wrong with the whole job.
            with suppress(OmegaConfBaseException):
                for value in values:
                    OmegaConf.update(settings, value.key_or_group, value.value(), merge=True)
                return read(settings, hydra, [value.key_or_group for value in values])
        return read_job(overrides)

    def _new_composition(self, overrides: tuple[str, ...]) -> tuple[DictConfig, DictConfig] | None:
        try:
            return _composed(overrides)
        except InputError:
            return None  # which each job says in its own words

    def _parsed_value(self, word: str) -> Override | None:
        """An override that sets one value of a setting; None if it chooses, adds, removes or sweeps."""
        try:
            override = self._parser.parse_override(word)
        except HydraException:
            return None
        name = override.key_or_group
        is_value = (
            override.type is OverrideType.CHANGE
            and not override.is_sweep_override()
            and override.package is None
            and name.partition(".")[0] in JobConfig.__dataclass_fields__
            and not self._is_group(name)
        )
        return override if is_value else None

    def _has_options(self, name: str) -> bool:
        loader = GlobalHydra.instance().config_loader()
        return bool(loader.get_group_options(name, None, "config", self._folders))


def read(composed: DictConfig, hydra: DictConfig, typed: Collection[str] = ()) -> JobConfig:
    """The checked settings of a job, from what Hydra composed and from its node `hydra`.

    Args:
        typed: names of settings that were given besides the overrides in `hydra`.

    Raises:
        InputError: lists every problem: unknown settings (`+key` gets past Hydra), values of a type that
            their class does not take, and all that `check` finds.
    """
    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except OmegaConfBaseException as error:
        raise InputError(explain(error)) from error
    command_line = typed_names(hydra) | set(typed)
    check_source_of_plugins(plain.get("plugins"), command_line)
    # 1. Settings that do not exist are set aside, so that all other problems are found too.
    problems = [_no_such_setting(key) for key in [*plain] if key not in JobConfig.__dataclass_fields__]
    plain = {key: value for key, value in plain.items() if key in JobConfig.__dataclass_fields__}
    problems += [*_schema_problems(plain), *targets.check_plugins(plain["plugins"])]
    # 2. The classes that `_target_` names, and the types of what they take.
    for group in GIVEN_BY_PROGRAM:
        option = option_file(group, hydra.runtime.choices[group], folders_of(hydra))
        problems += settle_target(group, option, plain, command_line)
    problems += _backbone_problems(plain)
    # 3. Values in the form that ids and rows have.
    _settle_tau(plain)
    for name in ("soft_window", "guidance_scale"):
        plain[name] = _floats(plain[name])
    plain = _positive_zeros(plain)
    # 4. Everything else, by the schema's types and bounds and by `check`.
    try:
        cfg = OmegaConf.to_object(OmegaConf.merge(_schema(), as_values(plain)))
    except OmegaConfBaseException as error:  # of a recipe's value where a list is due
        raise InputError(explain(error)) from error
    assert isinstance(cfg, JobConfig)
    check_lists(cfg)
    problems += check(cfg)
    if problems:
        raise InputError("\n".join(problems))
    return cfg


@cache
def _schema() -> DictConfig:
    """The types of all settings; a job has a value for each. Nobody changes it: a merge copies it.

    Defaults that refer to other settings are left out: a merge would look them up, and drop them.
    """
    schema = OmegaConf.structured(JobConfig)
    for name in schema:
        if OmegaConf.is_interpolation(schema, name):
            schema[name] = MISSING
    return schema


def _positive_zeros(value: Any) -> Any:
    """A setting's value with 0.0 for -0.0, which would have ids and a line in tables of its own."""
    if isinstance(value, dict):
        return {key: _positive_zeros(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_positive_zeros(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value


def typed_names(hydra: DictConfig) -> set[str]:
    """The names of the settings that the overrides of a job give, from Hydra's node `hydra`."""
    # Unresolved: what looks like a reference in free text is none.
    typed: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return set(map(override_key, typed))


def folders_of(hydra: DictConfig) -> list[Path]:
    """The folders with options that Hydra has looked into, those of `--config-dir` included."""
    sources = hydra.runtime.config_sources
    return [CONF, *(Path(source.path) for source in sources if source.schema == "file")]


def check_source_of_plugins(plugins: object, command_line: Collection[str]) -> None:
    """Refuses `plugins=` from a file: to run somebody's settings would be to run somebody's code.

    Raises:
        InputError: `plugins` is not empty, and `command_line`, the names of settings there, lacks it.
    """
    if plugins and "plugins" not in command_line:
        raise InputError(f"plugins={plugins}: only the command line can name plugins, not a file of settings")


def _schema_problems(plain: dict[str, Any]) -> list[str]:
    """Unknown settings of the groups that have a schema, which are taken out."""
    unknown = [(group, key) for group in SCHEMAS for key in plain[group] if key not in keys_of(group)]
    for group, key in unknown:
        del plain[group][key]
    return [_no_such_setting(f"{group}.{key}") for group, key in unknown]


def settle_target(
    group: str, option: Mapping[str, Any], plain: dict[str, Any], command_line: Collection[str]
) -> list[str]:
    """What is wrong with the `_target_` node of a group; its whole numbers become floats where those are due.

    A value of the option's file that another class than the file's does not take is left out.

    Args:
        option: the content of the option's file.
    """
    node: dict[str, Any] = plain[group]
    target, plugins = node.get("_target_", ""), plain.get("plugins", ())
    try:
        targets.check_room(target, ROOMS[group], f"{group}._target_")
        constructor = targets.signature(target, plugins, f"{group}._target_")
    except InputError as error:
        return [str(error)]
    parameters = constructor.parameters
    unknown = [key for key in node if key not in (*parameters, "_target_") and not constructor.is_open]
    if target != option.get("_target_"):
        node = {key: node[key] for key in node if key not in unknown or f"{group}.{key}" in command_line}
        unknown, plain[group] = [key for key in unknown if key in node], node
    for key in parameters.keys() & node.keys():
        if targets.has_type(parameters[key], "float"):
            node[key] = _floats(node[key])
    # A value that is a setting's, as of rank: ${rank}, is checked with the setting.
    checked = {key for key, value in node.items() if key in plain and plain[key] == value}
    names = {f"{group}.{name}" for name in parameters if name not in GIVEN_BY_PROGRAM[group]}
    problems = [_no_such_setting(f"{group}.{key}", names) for key in unknown]
    problems += targets.node_problems(group, node, constructor, GIVEN_BY_PROGRAM[group], checked)
    if not problems and target.startswith(f"{targets.PACKAGE}."):
        bounds = settings_in(JobConfig)  # a plugin may mean something else by a name
        for key in sorted(bounds.keys() & node.keys() - checked):
            problems += value_problems(f"{group}.{key}", node[key], bounds[key])
    return problems


def _backbone_problems(plain: Mapping[str, Any]) -> Iterator[str]:
    target = str(plain["model"].get("_target_"))
    path, _, loader = target.rpartition(".")
    try:
        if loader != "from_pretrained":
            raise InputError(f"model._target_={target}: PACKAGE.MODULE.CLASS.from_pretrained")
        targets.check_room(path, ROOMS["model"], "model._target_")
        targets.check_allowed(path, plain["plugins"], "model._target_")
    except InputError as error:
        yield str(error)


def _settle_tau(plain: dict[str, Any]) -> None:
    """Put the stored boundary in the place of `tau=auto`, and make every number a float, as ids have it.

    Raises:
        InputError: the model's file has no boundary, or `tau_from` was given.
    """
    if plain["tau_from"] != "given":
        raise InputError(f"tau_from={plain['tau_from']}: not for you to set; tau=auto takes the boundary")
    if plain["tau"] == "auto":
        model = plain["model"]
        if model.get("boundary") is None:
            raise InputError(
                f"tau=auto: no boundary is stored for model={model['name']}; give a number, or run its probes"
                " (probe=tampering) and set model.boundary"
            )
        plain |= {"tau": model["boundary"], "tau_from": "boundary"}
    plain["tau"] = _floats(plain["tau"])


def _floats(value: Any) -> Any:
    """Whole numbers as floats, in lists too; all else as it is."""
    if isinstance(value, list):
        return [_floats(item) for item in value]
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    # A number that is too large is refused with all other problems.
    return float(value) if is_whole and abs(value) <= LARGEST[float] else value


def explain(error: Exception) -> str:
    """What Hydra or OmegaConf has to say about the user's input, in the user's terms."""
    text = str(error)
    if missing := re.match(r"Could not override '([^']+)'", text):
        return _no_such_setting(missing[1])
    if isinstance(error, MissingConfigException) and (option := re.search(r"find '(\w+)/([^']*)'", text)):
        choice = f"{option[1]}={option[2]}"
        if choice in RENAMED:
            return f"{choice}: renamed to {RENAMED[choice]}"
        choices = one_of(option[2], error.options or options(option[1]))
        return f"{choice}: {choices}; a file of your own is in --config-dir=DIR ({EXAMPLE})"
    if several := re.match(
        r"Ambiguous value for argument '(.*?)'\n1\. |Sweep parameters '(.*)' req", text, re.DOTALL
    ):
        key, _, values = (several[1] or several[2]).partition("=")
        hint = "" if is_text(key) else f"; one list is {key}=[{values}]"
        return f"{key}={values}: several values are a sweep, which needs -m{hint}"
    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override))
    reason = str(error.__cause__ or error)
    where = re.match(r"Error merging override (.*)", text, re.DOTALL) or re.search(r"full_key: (.+)", reason)
    expected = next((right for sign, right in EXPECTED.items() if sign in reason), reason.splitlines()[0])
    name, _, value = where[1].partition("=") if where else ("", "", "")
    about = settings_in(JobConfig).get(name)
    if about is not None and about.timestep:  # of which a percent may have been given
        expected = about.expected(value)
    return f"{where[1]}: {expected}" if where else text


def _no_such_setting(path: str, names: Collection[str] = ()) -> str:
    """The error about an unknown setting; `names` are those that it could be, by default all of its group."""
    if path in RENAMED:
        return f"{path}: renamed to {RENAMED[path]}"
    group = path.rpartition(".")[0]
    if not names:
        names = (
            [f"{group}.{key}" for key in keys_of(group)]
            if group in (*GROUPS, *SCHEMAS)
            else [*settings_in(JobConfig)]
        )
    near = nearest(path, names)
    hint = f"; did you mean {near}?" if near else ""
    if near == path:
        hint = f"; another option of {group}= has it"
    if group in GIVEN_BY_PROGRAM:
        hint += f"; a setting of a plugin's class takes a plus: +{path}="
    return f"{path}: there is no such setting{hint} (`python run.py --help` lists all)"
