"""The rows of one experiment as lines of its tables: means, paired differences, and what is refused."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from motionexp.config.metrics import SET_VALUES
from motionexp.errors import InputError
from motionexp.results.formats import NONE, Block, Cell, Line
from motionexp.results.intervals import Interval, mean_interval
from motionexp.results.layout import Column, Difference, Group, Layout, Setting, TableLayout
from motionexp.results.rows import ANCHORS, Row, by_subject, check_comparable, paired_difference
from motionexp.results.selection import check_names, matches

Subject = tuple[str, str, int | None]
"""A reference, an edit kind, a seed: see `Row.subject`."""
Values = dict[Subject, float]


def mean_of(values: Values) -> Interval:
    """The mean over references of what each subject has."""
    return mean_interval(list(values.values()), [subject[0] for subject in values])


def count_of(subjects: Collection[Subject]) -> str:
    """Samples, and of how many references, as tables show n."""
    return f"{len(subjects)} ({len({subject[0] for subject in subjects})})"


class Measured:
    """The rows of one experiment, sorted by setting and metric, each setting's values by subject."""

    def __init__(self, layout: Layout, rows: Sequence[Row]) -> None:
        check_names(layout.selects(), rows)
        check_comparable(rows, layout.allow_mixed)
        self.layout = layout
        self.by_metric: dict[str, list[Row]] = defaultdict(list)
        self.by_anchor: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            (self.by_anchor[row.anchor] if row.anchor else self.by_metric)[row.metric].append(row)
        self.base = next((each for each in layout.settings.values() if each.base), None)
        self._picked: dict[tuple[str, str, str], list[Row]] = {}

    def has(self, column: Column) -> bool:
        """Whether the column is there: an optional one without rows is not."""
        return bool(self.by_metric.get(column.metric)) or not column.optional

    def rows(self, metric: str, setting: Setting, group: Mapping[str, str]) -> list[Row]:
        """One metric's rows of one setting in one group."""
        whole = metric, repr(setting), ""
        if whole not in self._picked:
            named = self.layout.select
            self._picked[whole] = [row for row in self.by_metric[metric] if setting.picks(row, named)]
        own = *whole[:2], repr(sorted(group.items()))
        if own not in self._picked:
            self._picked[own] = [row for row in self._picked[whole] if matches(row, group)]
        return self._picked[own]

    def values(self, column: Column, setting: Setting, group: Mapping[str, str]) -> Values:
        """What the column shows of each subject, with what the layout subtracts already subtracted."""
        own = by_subject(self.rows(column.metric, setting, group))
        if not column.minus:
            return own
        if column.minus == "base":
            if self.base is None:
                raise InputError(f"column {column.label} subtracts the base, and no setting is marked `base`")
            other = by_subject(self.rows(column.metric, self.base, group))
            if own and not other:
                raise InputError(
                    f"column {column.label} subtracts the base model, of which there are no rows for"
                    f" {dict(group)}; run that setting too ({self.base.select})"
                )
        else:
            other = by_subject(self.rows(column.minus, setting, group))
        return {key: value - other.get(key, math.nan) for key, value in own.items()}

    def line(self, table: TableLayout, name: str, group: Mapping[str, str]) -> Line:
        setting = self.layout.settings[name]
        cells = []
        for key in table.columns:
            column = self.layout.columns[key]
            values = self.values(column, setting, group)
            cells.append(Cell(key, mean_of(values), column.digits))
        metrics = {self.layout.columns[key].metric for key in table.columns}
        rows = [row for metric in metrics for row in self.rows(metric, setting, group)]
        sets = all(row.metric in SET_VALUES for row in rows)
        subjects = {row.subject for row in rows if sets or row.metric not in SET_VALUES}
        n = count_of(subjects) if subjects else NONE
        steps = sorted({row.adapter_steps for row in rows})
        return Line(setting.labels, list(cells), n, " / ".join(str(each) for each in steps))

    def anchors(self, table: TableLayout, group: Mapping[str, str]) -> list[Line]:
        """One line an anchor that was scored in this group."""
        lines = []
        for anchor in (each for each in ANCHORS if each in self.by_anchor):
            values = {
                key: self.anchor_values(self.layout.columns[key], anchor, group) for key in table.columns
            }
            cells: list[Cell | None] = [
                Cell(key, mean_of(each), self.layout.columns[key].digits) for key, each in values.items()
            ]
            subjects = {subject for each in values.values() for subject in each}
            if not subjects:
                continue
            labels = [ANCHORS[anchor], *[""] * (len(table.labels) - 1)]
            lines.append(Line(labels, cells, count_of(subjects), "", "sanity_baseline"))
        return lines

    def anchor_values(self, column: Column, anchor: str, group: Mapping[str, str]) -> Values:
        """As `values`; an anchor has no seed, so that of the base the mean over seeds is subtracted."""

        def of(metric: str) -> Values:
            return by_subject(row for row in self.by_anchor[anchor][metric] if matches(row, group))

        own = of(column.metric)
        if not column.minus:
            return own
        if column.minus != "base":
            other = of(column.minus)
            return {key: value - other.get(key, math.nan) for key, value in own.items()}
        seeds: dict[tuple[str, str], list[float]] = defaultdict(list)
        if self.base is not None:
            for row in self.rows(column.metric, self.base, group):
                seeds[row.reference, row.edit_kind].append(row.value)
        return {key: value - float(np.mean(seeds.get(key[:2], [math.nan]))) for key, value in own.items()}

    def difference(self, table: TableLayout, wanted: Difference, group: Mapping[str, str]) -> Line:
        cells = []
        for key in table.columns:
            column = self.layout.columns[key]
            ours, theirs = (
                self.values(column, self.layout.settings[name], group)
                for name in (wanted.ours, wanted.theirs)
            )
            cells.append(Cell(key, paired_difference(ours, theirs), column.digits))
        most = max(cells, key=lambda cell: cell.interval.n).interval
        n = f"{most.n} ({most.clusters})" if most.n else NONE
        return Line(wanted.labels, list(cells), n, "", is_difference=True)

    def less_default(self, table: TableLayout, group: Group) -> list[Block]:
        """Every setting less the default one, where the group has both."""
        if not table.default:
            return []
        labels = self.layout.settings[table.default].labels
        wanted = [
            Difference(self.layout.settings[name].labels, name, table.default)
            for name in table.settings
            if name != table.default
        ]
        lines = [self.difference(table, each, group.select) for each in wanted]
        title = f"{group.title}: difference to {', '.join(filter(None, labels))}, paired"
        return [Block(title, [line for line in lines if line.n != NONE])]

    def check_subjects(self, table: TableLayout, group: Group) -> None:
        """Refuses a block whose settings were not measured on the same references, edits and seeds.

        Raises:
            InputError: names two settings and what one of them lacks.
        """
        columns = [self.layout.columns[key] for key in table.columns]
        settings = self._compared(table, columns)
        measured = {
            name
            for name, setting in settings.items()
            if any(self.rows(column.metric, setting, group.select) for column in columns)
        }
        for metric, optional in sorted(_metrics(columns)):
            subjects = {
                name: {row.subject for row in self.rows(metric, settings[name], group.select)}
                for name in measured
            }
            there = {name: each for name, each in subjects.items() if each or not optional}
            whole = max(there, key=lambda name: len(there[name]), default="")
            for name, each in there.items():
                if missing := sorted(there[whole] - each, key=str):
                    raise InputError(
                        f"{table.file}, {group.title}: {metric} of setting {name} lacks {len(missing)} of the"
                        f" {len(there[whole])} samples of {whole}, for instance of {missing[0][0]}; all lines"
                        " of a table are of the same references, edits and seeds: run the sweep to its end,"
                        " or into an output= of its own"
                    )

    def _compared(self, table: TableLayout, columns: Sequence[Column]) -> dict[str, Setting]:
        """All settings that a line of the table is of, or is less."""
        names = [*table.settings, *(name for each in table.differences for name in (each.ours, each.theirs))]
        names += [table.default] if table.default else []
        settings = {name: self.layout.settings[name] for name in names}
        if self.base is not None and any(column.minus == "base" for column in columns):
            settings["base"] = self.base
        return settings


def _metrics(columns: Sequence[Column]) -> set[tuple[str, bool]]:
    """The metrics that columns show or subtract, and whether a setting may be without."""
    metrics = {(each.metric, each.optional or each.metric in SET_VALUES) for each in columns}
    return metrics | {(each.minus, each.optional) for each in columns if each.minus not in ("", "base")}
