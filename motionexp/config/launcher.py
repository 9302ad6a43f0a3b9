"""`hydra/launcher=`: who runs the tasks of a sweep, and its settings. Imports no torch."""

import importlib.util
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from motionexp.config.command_line import as_values, override_key, unreadable
from motionexp.config.options import option_file, options
from motionexp.config.settings import check_lists, setting, setting_problems, settings_in
from motionexp.errors import InputError, extra_command, nearest, one_of

GROUP = "hydra/launcher"
PREFIX = "hydra.launcher."
SWEEPER = ("hydra/sweeper", "hydra.sweeper.")
BASIC = "basic"
TEXT = ("partition", "account", "qos", "address")
"""Settings whose value is text, which a number may look like."""


@dataclass
class Launcher:
    """What every engine takes: into how many tasks a sweep is cut."""

    name: ClassVar[str]
    package: ClassVar[str]
    extra: ClassVar[str]
    is_here: ClassVar[bool] = True  # whether its processes run on this machine

    tasks: int | None = setting(None, "tasks in all; null: by hours=, else as many as run at once", low=1)
    hours: float | None = setting(None, "hours of a task, by the measured cost of its cells", above=0)


@dataclass
class JoblibLauncher(Launcher):
    """Processes on this machine."""

    name = "joblib"
    package = extra = "joblib"

    n_jobs: int | None = setting(
        None, "processes at once; null: one a GPU, else one a core", low=1, high=1024
    )


@dataclass
class LocalLauncher(JoblibLauncher):
    """Processes on this machine, started by submitit."""

    name = "submitit_local"
    package, extra = "submitit", "slurm"

    timeout_min: int = setting(
        10_080, "minutes until submitit stops a task, which then goes on", low=1, high=100_000
    )
    signal_delay_s: int = setting(120, "seconds before that in which it saves its state", low=0)
    max_num_timeout: int = setting(3, "how often a task goes on so", low=0)


@dataclass
class SlurmLauncher(Launcher):
    """A job array. Names and meanings are those of submitit."""

    name = "submitit_slurm"
    package, extra = "submitit", "slurm"
    is_here = False

    partition: str | None = setting(None, "of the cluster; null: its default")
    account: str | None = setting(None, "who pays; null: the user's default")
    qos: str | None = setting(None, "quality of service")
    gpus_per_node: int | None = setting(
        None, "GPUs of a task; null: trainer.devices, and with device=cpu none", low=0
    )
    cpus_per_task: int = setting(4, "cores of a process", low=1)
    mem_gb: float | None = setting(None, "main memory of a task in GB; null: the cluster's default", above=0)
    timeout_min: int = setting(240, "minutes until Slurm stops a task, which then goes on again", low=1)
    signal_delay_s: int = setting(120, "seconds before that in which it saves its state", low=0)
    max_num_timeout: int = setting(20, "how often a task goes on so", low=0)
    array_parallelism: int = setting(8, "most tasks at once", low=1)
    setup: list[str] = setting([], "shell lines before the task, such as module load cuda")
    additional_parameters: dict[str, Any] = setting({}, "further options of sbatch, by their names")


@dataclass
class RayLauncher(Launcher):
    """Tasks of a Ray cluster."""

    name = package = extra = "ray"

    address: str | None = setting(None, "of a running cluster, or auto; null: one on this machine")
    num_cpus: float = setting(1.0, "cores of a task", above=0)
    num_gpus: float | None = setting(
        None, "GPUs of a task; null: trainer.devices, and without GPUs or with device=cpu none", low=0
    )


KINDS: Mapping[str, type[Launcher]] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (JoblibLauncher, LocalLauncher, SlurmLauncher, RayLauncher)
}
"""{`_target_` of an option's file: its settings}. The file may give values of its own."""


def split_launcher(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words about the launcher, and all others."""
    chosen = [word for word in words if _is_of_launcher(word)]
    return chosen, [word for word in words if word not in chosen]


def _is_of_launcher(word: str) -> bool:
    name = override_key(word)
    return name == GROUP or name.startswith(PREFIX)


def load_launcher(words: Sequence[str], rest: Sequence[str] = ()) -> Launcher | None:
    """The checked settings of the launcher that `words` choose; None: `basic`.

    Args:
        words: about the launcher, as `split_launcher` gives them.
        rest: the other words of the command.

    Raises:
        InputError: no such launcher or setting, a wrong value, a launcher whose package is not installed, or
            a sweeper that chooses its values while it runs.
    """
    choice = next((word.partition("=")[2] for word in words if override_key(word) == GROUP), BASIC)
    overrides = {override_key(word)[len(PREFIX) :]: word for word in words if override_key(word) != GROUP}
    if choice not in (BASIC, *options(GROUP)):
        raise InputError(f"{GROUP}={choice}: {one_of(choice, (BASIC, *options(GROUP)))}")
    if choice == BASIC:
        if overrides:
            word = next(iter(overrides.values()))
            raise InputError(
                f"{word}: {GROUP}={BASIC} has no settings; choose another launcher, or leave it out"
            )
        return None
    if sweeper := next((word for word in rest if override_key(word).startswith(SWEEPER)), None):
        raise InputError(f"{sweeper}: only {GROUP}={BASIC} takes another sweeper; leave it out")
    launcher = _parsed(option_file(GROUP, choice), overrides)
    if problems := [*setting_problems(launcher, PREFIX), *_problems(launcher)]:
        raise InputError("\n".join(problems))
    return launcher


def _parsed(option: Mapping[str, Any], overrides: Mapping[str, str]) -> Launcher:
    """The launcher's settings by its file and by words.

    Raises:
        InputError: an unknown setting, or a value of another type than the setting's.
    """
    kind: Any = KINDS[option["_target_"]]
    plain = {name: value for name, value in option.items() if name != "_target_"}
    for name, word in overrides.items():
        root, _, key = name.partition(".")
        if root not in settings_in(kind) or (key and root != "additional_parameters"):
            near = nearest(name, settings_in(kind))
            hint = f"did you mean {near}? " if near else ""
            raise InputError(f"{PREFIX}{name}: {hint}{kind.name} has {', '.join(settings_in(kind))}")
        value = word.partition("=")[2] if root in TEXT else _value(word)
        if key:
            plain.setdefault(root, {})[key] = value
        else:
            plain[root] = None if value == "null" else value
    try:
        launcher: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), as_values(plain)))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or next(iter(overrides))
        raise InputError(f"{overrides.get(key, PREFIX + str(key))}: {str(error).splitlines()[0]}") from error
    check_lists(launcher)
    assert isinstance(launcher, Launcher)
    return launcher


def _value(word: str) -> Any:
    """The value of an override. Raises InputError where Hydra cannot read it, or where it is a sweep."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise InputError(unreadable(word)) from error
    if override.is_sweep_override():
        raise InputError(f"{word}: a launcher has one value of each setting")
    return _plain(override._value)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def _problems(launcher: Launcher) -> Iterator[str]:
    if launcher.tasks is not None and launcher.hours is not None:
        yield f"{PREFIX}tasks= and {PREFIX}hours=: both say how many tasks there are; leave out one"
    if importlib.util.find_spec(launcher.package) is None:
        yield (
            f"{GROUP}={launcher.name}: {launcher.package} is not installed; {extra_command(launcher.extra)}"
        )
    elif isinstance(launcher, SlurmLauncher) and shutil.which("sbatch") is None:
        yield f"{GROUP}={launcher.name}: there is no sbatch here; run the command on a node that submits jobs"
