"""What a setting's line in a schema says: meaning, bounds, and what depends on it. Imports no torch."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, TypeVar

from motionexp.config.renames import OPTIONS
from motionexp.errors import InputError, one_of

Stage = Literal["cell", "training", "applying", "sampling", "probe", "method", "tau", "content", "none"]
"""Where a setting enters the ids of results.

cell: every adapter's and every probe's id. training: the id of a trained adapter. applying: the ids of
samples with an adapter. sampling: the ids of all samples. probe: a probe's id. method, tau: through the
setting of that name. content: as the content of a video, a caption or weights. none: no id.
"""
LARGEST: Mapping[type, float] = {int: 2**63 - 1, float: 3.4e38}
"""What a tensor of whole numbers holds, and one of single precision."""
NAME = r"\w[\w.-]*"
"""Of what becomes a folder's name: no slash, and neither `.` nor `..`."""
REVISION = r"(?!.*\.\.)\w[\w.+/-]*"
"""Of a hub's commit, branch or tag, which is part of a path in the hub's cache; a + joins two."""
PERCENT = re.compile(r"\d+(\.\d+)?%")
Rows = Literal["always", "where it matters", "never"]
Schema = TypeVar("Schema")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The metadata of one setting.

    Attributes:
        help: its line in `--help`, after its choices.
        stages: the ids that it is part of; see `Stage`.
        low, high, above: bounds of a number; `low` and `high` are allowed values, `above` is not.
        multiple_of: what a whole number is a multiple of.
        timestep: whether the number is a timestep.
        choices: all values that it can have.
        pattern: what its text matches in full; an error then shows `help`.
        text: whether it is free text, which needs no quotes on the command line.
        rows: whether the rows of results carry it.
        listed: whether the list of an experiment's jobs always names it.
        default_in_tables: whether a table's line that does not name it shows only rows with its default.
        added_later: whether ids leave out its default, so that results from before it keep their ids.
        whole: whether the number is a whole one; `settings_in` sets it by the field's type.
    """

    help: str
    stages: tuple[Stage, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    multiple_of: int = 1
    timestep: bool = False
    choices: tuple[str | None, ...] = ()
    pattern: str = ""
    text: bool = False
    rows: Rows = "always"
    listed: bool = False
    default_in_tables: bool = True
    added_later: bool = False
    whole: bool = False

    def expected(self, value: Any = "") -> str:
        """What a right value is, in words, where `value` was given."""
        if self.choices or self.pattern:
            return one_of(str(value), filter(None, self.choices)) if self.choices else self.help
        if self.timestep and isinstance(value, str) and PERCENT.fullmatch(value):
            return f"a timestep from 0 to 1000 is meant, not a share ({10 * float(value[:-1]):g}?)"
        kind = "a timestep" if self.timestep else "a whole number" if self.whole else "a number"
        if self.multiple_of > 1:
            kind = f"a multiple of {self.multiple_of}"
        lower = f"above {self.above:g}" if self.above > -math.inf else f"from {self.low:g}"
        return f"{kind} {lower}" + (f" to {self.high:g}" if self.high < math.inf else "")

    def allows(self, value: Any) -> bool:
        """Whether a value is within the bounds, or among the choices."""
        if self.choices:
            return value in self.choices
        if self.pattern:
            return value is None or bool(re.fullmatch(self.pattern, str(value)))
        if value is None or max(self.low, self.above) == -math.inf:
            return True
        # YAML's true is a bool, which Python takes for 1.
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        in_bounds = self.above < value and self.low <= value <= self.high
        return in_bounds and (self.multiple_of == 1 or value % self.multiple_of == 0)


def setting(default: Any, help: str, *stages: Stage, **more: Any) -> Any:
    """A dataclass field for a setting; `more` are attributes of `Setting`. Each job gets a copy of a list."""
    # What enters no id changes no result, and rows leave it out.
    if stages == ("none",):
        more = {"rows": "never", **more}
    # null is no choice to name: its meaning is in the help's text.
    help = ": ".join(filter(None, (", ".join(filter(None, more.get("choices", ()))), help)))
    metadata = {"setting": Setting(help=help, stages=stages, **more)}
    if isinstance(default, list | dict | type):
        factory = default if isinstance(default, type) else default.copy
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@cache
def settings_in(schema: Any) -> Mapping[str, Setting]:
    """The settings of a schema by their names, in the order of its lines."""
    return {
        line.name: replace(line.metadata["setting"], whole=line.type in (int, int | None))
        for line in fields(schema)
    }


def names_in(schema: Any, chosen: Callable[[Setting], object]) -> tuple[str, ...]:
    """The names of the settings for which `chosen` is true."""
    return tuple(name for name, about in settings_in(schema).items() if chosen(about))


def setting_problems(cfg: Any, prefix: str = "") -> Iterator[str]:
    """All that is wrong with single settings, as far as their own lines say; one sentence a problem.

    Args:
        cfg: an instance of a schema.
        prefix: what precedes the names, as in `model.`.
    """
    schema: Any = type(cfg)
    about = settings_in(schema)
    for line in fields(cfg):
        value = getattr(cfg, line.name)
        yield from value_problems(prefix + line.name, value, about[line.name])
        if value == [] and line.type == list[str] | None:
            yield f"{prefix}{line.name}=[]: name at least one, or null for all"


def check_lists(cfg: Any) -> None:
    """Raises InputError for a list or a mapping within a list of plain values; OmegaConf lets it pass."""
    for line in fields(cfg):
        value = getattr(cfg, line.name)
        items = value if isinstance(value, list) and str(line.type).startswith("list[") else ()
        if wrong := next((item for item in items if isinstance(item, list | dict)), None):
            raise InputError(f"{line.name}: {wrong!r:.80} in the list is neither text nor number")


def value_problems(name: str, value: Any, about: Setting) -> Iterator[str]:
    """What is wrong with one value by its setting's metadata."""
    shown = f"{value:g}" if isinstance(value, float) else value
    most = LARGEST.get(type(value))
    if most is not None and about.allows(value) and abs(value) > most:
        yield f"{name}={shown}: too large; at most {most:g}"
    elif isinstance(value, str) and "\0" in value:
        yield f"{name}={shown}: no text holds the character NUL"
    elif not about.allows(value):
        before = f"{name}={shown}".lower()
        is_old = before in OPTIONS
        yield (
            f"{before}: renamed to {OPTIONS[before]}"
            if is_old
            else f"{name}={shown}: {about.expected(value)}"
        )
    elif about.timestep and value is not None and 0 < value <= 1:
        yield f"{name}={shown}: a timestep from 0 to 1000 is meant, not a share ({name}={1000 * value:g}?)"


def typed_settings(schema: type[Schema], texts: dict[str, str]) -> Schema:
    """An instance of a schema of texts, numbers and truth values from words of a command.

    Args:
        schema: a dataclass of settings.
        texts: {name: value as it was typed}; those of the schema are taken out.

    Raises:
        InputError: a value is of another type than its setting.
    """
    lines: Any = schema
    return schema(
        **{
            line.name: _typed(line.name, texts.pop(line.name), line.type)
            for line in fields(lines)
            if line.name in texts
        }
    )


def _typed(name: str, text: str, kind: Any) -> Any:
    if text == "null" and kind in (str | None, int | None):
        return None
    if kind is bool:
        if text not in ("true", "false"):
            raise InputError(f"{name}={text:.40}: true or false")
        return text == "true"
    if kind in (int, int | None):
        try:
            return int(text)
        except ValueError as error:
            raise InputError(f"{name}={text:.40}: a whole number") from error
    return text
