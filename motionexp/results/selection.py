"""Which rows a line of a table takes: by their fields, strata and settings. Imports no torch."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING
from typing import Any

from motionexp.config.schema import JobConfig
from motionexp.config.settings import Stage, names_in
from motionexp.errors import InputError
from motionexp.results.rows import FIELDS, Row


def _in_tables(*stages: Stage) -> tuple[str, ...]:
    return names_in(JobConfig, lambda about: about.default_in_tables and {*about.stages} & {*stages})


TRAINED = _in_tables("training", "applying", "method")
SAMPLED = tuple(name for name in _in_tables("sampling", "cell") if name not in TRAINED)
WHERE_IT_MATTERS = names_in(JobConfig, lambda about: about.rows == "where it matters")
"""In rows only where samples were made in tiles, or by an adapter that was given."""
STRATA = ("appearances", "captions")
"""Strata of references with several appearances, or with captions that name the motion."""


def is_plain(row: Row, named: Collection[str]) -> bool:
    """Whether all settings but the `named` ones are at their defaults; those of its model where it has some.

    The base model's rows say nothing of training. What a row does not know is older than the setting.
    """
    names = (*SAMPLED, *WHERE_IT_MATTERS) + (() if row.method == "base" else TRAINED)
    settings = {name: row.settings[name] for name in names if name in row.settings and name not in named}
    own = all(value == default_of(name, row) for name, value in settings.items())
    return own and not any(name in row.strata for name in STRATA if name not in named)


def default_of(name: str, row: Row) -> Any:
    """A setting's default, that of the row's model where it has one."""
    each = JobConfig.__dataclass_fields__[name]
    default = each.default_factory() if each.default_factory is not MISSING else each.default
    if not (isinstance(default, str) and default.startswith("${model.")):
        return default
    key = default.removeprefix("${model.").removesuffix("}")
    return row.settings.get("model", {}).get(
        "full_rank_learning_rate" if (key, row.method) == ("learning_rate", "full_rank") else key
    )


def matches(row: Row, select: Mapping[str, str]) -> bool:
    """Whether the row's fields, strata and settings are what is asked.

    Alternatives are parted by `|`; an empty one stands for rows that say nothing of it.
    """
    return all(row.stratum(name) in wanted.split("|") for name, wanted in select.items())


def check_names(selects: Iterable[Mapping[str, str]], rows: Iterable[Row]) -> None:
    """Refuses to select by what no row has: nothing would be selected, and nothing said.

    Raises:
        InputError: a name that is no field of a row, no setting of a job, and no stratum of these rows.
    """
    known = {*FIELDS, *JobConfig.__dataclass_fields__, *STRATA}
    if unknown := {name for each in selects for name in each} - known:
        strata = {name for row in rows for name in (*row.strata, *row.settings)}
        if wrong := sorted(unknown - strata):
            raise InputError(
                f"select: no row has {', '.join(wrong)}; rows are selected by their fields"
                f" ({', '.join(FIELDS)}), by a job's settings and by their strata"
                f" ({', '.join(sorted(strata - known)) or 'none here'})"
            )
