"""Tables: a pure function of rows and of the numbers that a paper reports.

`python -m motionexp.tables [experiments/NAME.yaml ...]` (`make tables`) writes every table that the layouts
name, as Markdown, LaTeX and CSV, from the published rows; it needs neither torch nor a network. Without names
it takes all experiments whose rows are published.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from motionexp.config import InputError
from motionexp.intervals import Curve, Interval, mean_interval, motion_at_equal_leakage
from motionexp.layouts import (
    Column,
    Decision,
    Difference,
    Group,
    Layout,
    Setting,
    TableLayout,
    matches,
    read_layout,
)
from motionexp.publish import is_published, read_published
from motionexp.results import ANCHORS, Row, by_subject, check_comparable, paired_difference, write_whole
from motionexp.scoring_config import OF_SETS
from motionexp.table_formats import NONE, Block, Cell, Line, Table, to_csv, to_latex, to_markdown

Values = dict[tuple[str, str, int | None], float]


class Measured:
    """The rows of one experiment, sorted by setting and metric, each setting's values by subject."""

    def __init__(self, layout: Layout, rows: Sequence[Row]) -> None:
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
            cells.append(
                Cell(key, mean_interval(list(values.values()), [s[0] for s in values]), column.digits)
            )
        metrics = {self.layout.columns[key].metric for key in table.columns}
        rows = [row for metric in metrics for row in self.rows(metric, setting, group)]
        sets = all(row.metric in OF_SETS for row in rows)
        subjects = {row.subject for row in rows if sets or row.metric not in OF_SETS}
        n = f"{len(subjects)} ({len({subject[0] for subject in subjects})})" if subjects else NONE
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
                Cell(
                    key,
                    mean_interval(list(each.values()), [subject[0] for subject in each]),
                    self.layout.columns[key].digits,
                )
                for key, each in values.items()
            ]
            subjects = {subject for each in values.values() for subject in each}
            n = f"{len(subjects)} ({len({subject[0] for subject in subjects})})"
            lines.append(Line([ANCHORS[anchor], *[""] * (len(table.labels) - 1)], cells, n, "", "anchor"))
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
        title = f"{group.title}: each less {', '.join(filter(None, labels))}, paired"
        return [Block(title, [line for line in lines if line.n != NONE])]

    def check_subjects(self, table: TableLayout, group: Group) -> None:
        """Refuses a block whose settings were not measured on the same references, edits and seeds.

        Raises:
            InputError: names two settings and what one of them lacks.
        """
        for metric in {self.layout.columns[key].metric for key in table.columns}:
            subjects = {
                name: {row.subject for row in self.rows(metric, self.layout.settings[name], group.select)}
                for name in table.settings
            }
            there = {name: each for name, each in subjects.items() if each}
            whole = max(there, key=lambda name: len(there[name]), default="")
            for name, each in there.items():
                if missing := sorted(there[whole] - each, key=str):
                    raise InputError(
                        f"{table.file}, {group.title}: {metric} of setting {name} lacks {len(missing)} of the"
                        f" {len(there[whole])} samples of {whole}, for instance of {missing[0][0]}; all lines"
                        " of a table are of the same references, edits and seeds: run the sweep to its end,"
                        " or into an output= of its own"
                    )

    def curve(
        self, decision: Decision, leakage: str, name: str, group: Mapping[str, str]
    ) -> dict[str, np.ndarray]:
        """(2, S) motion and leakage of each reference at ascending scales, the base first."""
        if self.base is None:
            raise InputError("motion at equal leakage needs the setting that is marked `base`")
        setting = self.layout.settings[name]
        points = [self.base] + [
            Setting([], {**setting.select, "adapter_scale": f"{scale:g}"})
            for scale in sorted(decision.scales)
        ]
        columns = [self.layout.columns[decision.motion], self.layout.columns[leakage]]
        means = [[_by_reference(self.values(each, point, group)) for point in points] for each in columns]
        shared = set.intersection(*(set(each) for column in means for each in column))
        return {
            reference: np.array([[each[reference] for each in column] for column in means])
            for reference in sorted(shared)
        }

    def decision_block(self, table: TableLayout, decision: Decision, group: Group, leakage: str) -> Block:
        named = {name: self.curve(decision, leakage, name, group.select) for name in decision.curves}
        shared = sorted(set.intersection(*(set(each) for each in named.values())))
        label, digits = self.layout.columns[leakage].label, self.layout.columns[decision.motion].digits
        lines = []
        if shared:
            stacked = {
                name: Curve(*np.stack([each[reference] for reference in shared], axis=-1))
                for name, each in named.items()
            }
            for name, curve in stacked.items():
                cells: list[Cell | None] = []
                for level in decision.levels:
                    cells.append(Cell(f"{level:g}", motion_at_equal_leakage(curve, level), digits))
                    cells += [
                        None
                        if name in decision.against
                        else Cell(
                            f"{level:g} less {other}",
                            motion_at_equal_leakage(curve, level, stacked[other]),
                            digits,
                            is_difference=True,
                        )
                        for other in decision.against
                    ]
                lines.append(Line(self.layout.settings[name].labels, cells, f"({len(shared)})", ""))
        return Block(f"{group.title}; {label}", lines)


def _by_reference(values: Values) -> dict[str, float]:
    grouped: dict[str, list[float]] = defaultdict(list)
    for subject, value in values.items():
        if not math.isnan(value):
            grouped[subject[0]].append(value)
    return {reference: float(np.mean(each)) for reference, each in grouped.items()}


def build(layout: Layout, wanted: TableLayout, rows: Sequence[Row]) -> list[Table]:
    """The finished table, and where the layout asks for it a second one with motion at equal leakage.

    Raises:
        InputError: rows that do not belong in one table, or a layout that selects two settings as one.
    """
    measured = Measured(layout, rows)
    wanted = replace(wanted, columns=[key for key in wanted.columns if measured.has(layout.columns[key])])
    blocks = []
    for group in wanted.groups:
        measured.check_subjects(wanted, group)
        names = [name for name in wanted.settings if layout.settings[name].may_be_in(group)]
        lines = [measured.line(wanted, name, group.select) for name in names]
        anchors = measured.anchors(wanted, group.select)
        if not anchors and all(line.n == NONE for line in lines):
            continue
        differences = [measured.difference(wanted, each, group.select) for each in wanted.differences]
        lines += [line for line in differences if line.n != NONE]
        blocks.append(Block(group.title, [*lines, *anchors]))
        blocks += measured.less_default(wanted, group)
    blocks += _reported_blocks(layout, wanted)
    columns = [layout.columns[key].label for key in wanted.columns]
    kept = [each for each in blocks if each.lines]
    tables = [Table(wanted.title, wanted.labels, columns, kept, wanted.notes, wanted.unit)]
    if wanted.decision:
        tables.append(_decision_table(measured, wanted, wanted.decision))
    return tables


def _reported_blocks(layout: Layout, wanted: TableLayout) -> list[Block]:
    by_source: dict[str, list[Line]] = defaultdict(list)
    for each in wanted.reported:
        cells: list[Cell | None] = [
            Cell(key, Interval(each.values[key], math.nan, math.nan, 0, 0), layout.columns[key].digits)
            if key in each.values
            else None
            for key in wanted.columns
        ]
        by_source[each.source].append(Line(each.labels, cells, "", "", "reported"))
    return [Block(f"Reported: {source}", lines) for source, lines in by_source.items()]


def _decision_table(measured: Measured, wanted: TableLayout, decision: Decision) -> Table:
    against = [" ".join(measured.layout.settings[name].labels) for name in decision.against]
    columns = [
        label
        for level in decision.levels
        for label in (f"motion at leakage {level:g}", *(f"less {other}, paired" for other in against))
    ]
    blocks = [
        measured.decision_block(wanted, decision, group, leakage)
        for group in wanted.groups
        for leakage in decision.leakage
    ]
    note = (
        "The most motion on the curve of adapter scales "
        f"(0, {', '.join(f'{scale:g}' for scale in sorted(decision.scales))}) whose leakage is at most the "
        "level; both linear between scales, of the mean over references, which are redrawn together. A"
        " reference that lacks a value at one of the scales is left out of all."
    )
    title, kept = f"{wanted.title}: motion at equal leakage", [each for each in blocks if each.lines]
    return Table(title, wanted.labels, columns, kept, [note, *wanted.notes], wanted.unit)


def write_tables(root: Path, layout: Layout, rows: Sequence[Row]) -> list[Path]:
    """Writes the tables of a layout that have measured rows, as .md, .tex and .csv; returns the files."""
    built = [(wanted.file, build(layout, wanted, rows)) for wanted in layout.tables]
    return [
        path for file, tables in built if tables[0].is_measured for path in write_formats(root / file, tables)
    ]


def write_formats(file: Path, tables: Sequence[Table]) -> list[Path]:
    """Writes tables into one `file` of each format, whose suffixes are added; returns the files."""
    formats = {
        ".md": "\n".join(map(to_markdown, tables)),
        ".tex": "\n".join(map(to_latex, tables)),
        ".csv": to_csv(tables),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    paths = [file.with_name(file.name + suffix) for suffix in formats]
    for path, text in zip(paths, formats.values(), strict=True):
        write_whole(path, text.encode())
    return paths


def main(arguments: Sequence[str]) -> int:
    """Builds the tables of the named layouts, or of all in experiments/ with rows; returns the exit code."""
    try:
        for path in map(Path, arguments or sorted(map(str, Path("experiments").glob("*.yaml")))):
            root, layout = path.resolve().parent.parent, read_layout(path)
            if not (layout.rows and layout.tables) or not (arguments or is_published(path, layout)):
                continue
            paths = write_tables(root, layout, read_published(root / layout.rows))
            if not paths:
                raise InputError(f"{path}: none of its settings is that of a row of {layout.rows}")
            for written in paths:
                print(written.relative_to(root))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
