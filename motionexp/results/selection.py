"""Selecting the rows of a table's line by fields, strata and settings. Imports no torch."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from omegaconf import MISSING as REQUIRED

from motionexp.config.options import method_defaults
from motionexp.config.schema import RECIPE_SETTINGS, JobConfig, ModelConfig
from motionexp.config.settings import Stage, names_in
from motionexp.errors import InputError, nearest
from motionexp.results.rows import FIELDS, Row


def _in_tables(*stages: Stage) -> tuple[str, ...]:
    return names_in(JobConfig, lambda about: about.default_in_tables and {*about.stages} & {*stages})


TRAINED = _in_tables("training", "applying", "method")
SAMPLED = tuple(name for name in _in_tables("sampling", "cell") if name not in TRAINED)
OCCASIONAL = names_in(JobConfig, lambda about: about.rows == "where it matters")
"""Settings that rows hold only where they change results: samples made in tiles, an adapter from a file, a
network of fewer bits."""
DEFAULT_METHOD = "lora"
STRATA = ("appearances", "captions")
"""Strata of references with several appearances, or with captions that name the motion."""
MOST_LISTED = 20
"""Values that an error lists."""


def has_defaults(row: Row, names: Collection[str]) -> bool:
    """Whether all settings except those in `names` have their default value, or their model's default.

    Rows of the base model hold no settings of training. A setting that a row lacks is newer than the row.
    """
    settings = (*SAMPLED, *OCCASIONAL) + (() if row.method == "base" else TRAINED)
    return not any(name in row.strata and name not in names for name in STRATA) and all(
        row.settings[name] == default_of(name, row)
        for name in settings
        if name in row.settings and name not in names
    )


def changed_settings(settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The settings of a result that do not have their default value, or their model's default; tau is apart.

    Args:
        settings: as rows hold them.
        method: as in rows: `base` has no settings of training.
    """
    names = SAMPLED if method == "base" else (*TRAINED, *SAMPLED)
    changed: dict[str, Any] = {} if method in ("base", DEFAULT_METHOD) else {"method": method}
    changed |= {
        name: settings[name]
        for name in names
        if name in settings and settings[name] != _default_of(name, settings, method)
    }
    return changed | ({"seed": settings["seed"]} if settings.get("seed") else {})


def default_of(name: str, row: Row) -> Any:
    """A setting's default, that of the row's model where the model has one."""
    return _default_of(name, row.settings, row.method)


def _default_of(name: str, settings: Mapping[str, Any], method: str) -> Any:
    entry = JobConfig.__dataclass_fields__[name]
    default = entry.default if entry.default_factory is MISSING else entry.default_factory()
    default = method_defaults(method).get(name, default)
    # The default may be an entry of the model's configuration, which the row holds under `model`.
    model = settings.get("model", {})
    if name in RECIPE_SETTINGS:
        # Rows from before the model had it lack the entry.
        before = ModelConfig.__dataclass_fields__[name].default
        return model.get(name, None if before == REQUIRED else before)
    if not (isinstance(default, str) and default.startswith("${model.")):
        return default
    return model.get(default.removeprefix("${model.").removesuffix("}"))


def setting_of(row: Row, name: str) -> str:
    """The text of a setting, a field or a stratum of a row; `method.rank` and `data.split` are names too."""
    return text_in(row, name)


def text_in(fields: Mapping[str, Any] | Row, name: str) -> str:
    """As `setting_of`, of a row's fields by their names."""
    settings, strata = fields.get("settings", {}), fields.get("strata", {})
    group, _, key = name.partition(".")
    if key and group == "data":
        value: Any = strata.get(key, "")
    elif key:
        of_group = settings.get(group, {})
        value = of_group.get(key, "") if isinstance(of_group, dict) else ""
    elif name in settings and name not in ("model", "method", "tau", "precision"):
        value = settings[name]  # `seed` is also a field, which numbers the samples of an edit
    else:
        name = "suite" if name == "data" else name
        value = fields.get(name, strata.get(name, settings.get(name, "")))
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_key(row: Row) -> tuple[Any, ...]:
    """Equal of rows that have one object of settings, as those that were read share it, and equal fields."""
    return (
        id(row.settings),
        row.method,
        row.tau,
        row.precision,
        row.steps,
        row.train_steps,
        row.adapter_scale,
    )


def distinct_settings(rows: Iterable[Row]) -> list[Row]:
    """A row of each combination of settings that rows have: few of a million."""
    return list({settings_key(row): row for row in rows}.values())


def has_value(fields: Mapping[str, Any] | Row, name: str, values: str) -> bool:
    """Whether a row has one of the values, between commas, of a setting, a field or a stratum.

    The base model has every value of a setting of tuning.
    """
    if fields.get("method") == "base" and name.partition(".")[0] in TRAINED:
        return True
    return text_in(fields, name) in (values, *values_in(values))


def values_in(values: str) -> list[str]:
    """The values of a word NAME=VALUE,VALUE; a list in brackets is one value."""
    return [values] if values.startswith("[") else values.split(",")


def selected(rows: Sequence[Row], name: str, values: str, place: Path) -> list[Row]:
    """The rows in a folder that have one of the values; `check_values` says what it raises."""
    check_values(name, values, {text_in(row, name) for row in rows}, rows, place)
    return [row for row in rows if has_value(row, name, values)]


def check_values(
    name: str, values: str, texts: Collection[str], rows: Iterable[Mapping[str, Any] | Row], place: Path
) -> None:
    """Refuse a selection by a value that nothing has: it would silently select nothing.

    Args:
        name: of a setting, a field or a stratum.
        values: that are selected, with commas between.
        texts: the values that there are.
        rows: whose strata are names too.
        place: the folder that they are in.

    Raises:
        InputError: one of the values is not there.
    """
    missing = [value for value in values_in(values) if value not in texts]
    if not missing or values in texts:
        return
    problem = "" if any(texts) else no_such_name(name, rows)
    if not problem:
        listed = ", ".join(sorted({*texts} - {""}, key=_in_order)[:MOST_LISTED]) or "none"
        problem = f"nothing in {place} has {' or '.join(value or repr('') for value in missing)}"
        problem += f"; the values there are {listed}"
    raise InputError(f"{name}={values}: {problem}")


def _in_order(text: str) -> tuple[float, str]:
    """Sorts numbers by their size, before words."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def no_such_name(name: str, rows: Iterable[Mapping[str, Any] | Row]) -> str:
    """What a name could have been that no row has, for an error; empty where it is one of a row's names."""
    names = {
        *FIELDS,
        *JobConfig.__dataclass_fields__,
        *(key for row in rows for key in row.get("strata", ())),
    }
    near = nearest(name, names)
    hint = f"; did you mean {near}?" if near else ""
    return "" if name.partition(".")[0] in names else f"no row has such a setting{hint}"


def matches(row: Row, select: Mapping[str, str]) -> bool:
    """Whether the row's fields, strata and settings have the selected values.

    `|` separates alternatives; an empty alternative matches rows that lack the name.
    """
    return row.matches(select)


def check_names(selects: Iterable[Mapping[str, str]], rows: Iterable[Row]) -> None:
    """Refuses a selection by a name that no row has: it would silently select nothing.

    Raises:
        InputError: a name that is no field of a row, no setting of a job, and no stratum of these rows.
    """
    # Strata may be absent from a few rows; fields and settings exist without rows.
    always = {*FIELDS, *JobConfig.__dataclass_fields__, *STRATA}
    if names := {name for select in selects for name in select} - always:
        rows = list(rows)
        strata = {name for row in rows for name in (*row.strata, *row.settings)}
        strata |= {f"method.{name}" for row in rows for name in row.settings.get("method", ())}
        if unknown := sorted(names - strata):
            raise InputError(
                f"select: no row has {', '.join(unknown)}; rows are selected by their fields"
                f" ({', '.join(FIELDS)}), by a job's settings and by their strata"
                f" ({', '.join(sorted(strata - always)) or 'none here'})"
            )
