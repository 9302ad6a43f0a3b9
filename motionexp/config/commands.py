"""Settings of the commands that read finished results, and of the page. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from omegaconf import MISSING

from motionexp.config.command_line import check_not_empty, check_once, selection
from motionexp.config.settings import setting, setting_problems, settings_in, typed_settings
from motionexp.errors import InputError, one_of

LAYOUTS = ("tgve", "videos")
PORTS = {"low": 1024, "high": 65535}
Schema = TypeVar("Schema")


# fmt: off
@dataclass
class StatusConfig:
    """Every setting of `python run.py status`."""

    output: str = setting("outputs", "folder of a sweep or of cells", text=True)


@dataclass
class TableConfig:
    """Every setting of `python run.py table`."""

    output: str = setting("outputs", "folder of finished samples", text=True)
    by: str | None = setting(
        None, "the settings that are columns, with commas between; null: those that differ", text=True)


@dataclass
class ReportConfig:
    """Every setting of `python run.py report`."""

    output: str | None = setting(None, "folder of results, or of a sweep; null: outputs", text=True)
    compare: str | None = setting(None, "A,B: two such folders, side by side, in place of output=", text=True)
    folder: str | None = setting(
        None, "of the pages; null: report/ in output=, report-compared/ in the first of two", text=True)


@dataclass
class SubmissionConfig:
    """Every setting of `python run.py submission`."""

    samples: str = setting(MISSING, "folder of finished samples, as outputs/tgve/MODEL", text=True)
    folder: str = setting(MISSING, "new folder, which is written to", text=True)
    layout: str = setting(
        "tgve", "the benchmark's pictures, or videos with prompts.json and references/", choices=LAYOUTS)


@dataclass
class DashboardConfig:
    """Every setting of `python run.py dashboard`."""

    project: str | None = setting(None, "in Weights & Biases; null: $WANDB_PROJECT, or motionexp", text=True)
    entity: str | None = setting(None, "its owner; null: $WANDB_ENTITY, or who is logged in", text=True)
    output: str = setting("outputs", "folder of dashboard.json, where nobody is logged in", text=True)


@dataclass
class UiConfig:
    """Every setting of `python run.py ui`."""

    output: str = setting("outputs", "folder of the page's runs", text=True)
    port: int = setting(7860, "of this machine, where the page is", **PORTS)
# fmt: on


def command_settings(
    command: str, schema: type[Schema], words: Sequence[str], *, selects: bool = False
) -> tuple[Schema, dict[str, str]]:
    """The checked settings of a command, and {name: value} of the words that select samples by their rows.

    Args:
        command: its name.
        schema: a dataclass of its settings; one without a default is needed.
        words: what was typed after the command.
        selects: whether other names than the schema's select samples; else they are an error.

    Raises:
        InputError: a word is no NAME=VALUE, a setting is missing, unknown or given twice, or a value is
            none of its setting.
    """
    check_once(words)
    check_not_empty(words)
    select = selection(command, words)
    lines: Any = schema
    about = settings_in(lines)
    for line in fields(lines):
        if line.default == MISSING and line.name not in select:
            raise InputError(f"{command}: {line.name}= is missing: {about[line.name].help}")
    cfg = typed_settings(schema, select)
    problems = [*setting_problems(cfg)]
    if select and not selects:
        wrong, value = next(iter(select.items()))
        problems.append(f"{wrong}={value:.40}: {command} has no such setting; {one_of(wrong, about)}")
    if problems:
        raise InputError("\n".join(problems))
    return cfg, select
