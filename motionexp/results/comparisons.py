"""The rows of one experiment as lines of its tables: means, paired differences, and what is refused."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

import numpy as np

from motionexp.config.metrics import SET_VALUES
from motionexp.errors import InputError
from motionexp.results.formats import FEWEST, NONE, Block, Cell, Line
from motionexp.results.intervals import Interval, mean_interval
from motionexp.results.layout import Column, Difference, Group, Layout, Setting, TableLayout
from motionexp.results.rows import FIELDS, SANITY_BASELINES, Row, Subject
from motionexp.results.selection import check_names, matches
from motionexp.results.significance import MeasuredDifference
from motionexp.results.subjects import Values, by_subject
from motionexp.results.versions import check_comparable


def mean_of(values: Values) -> Interval:
    """The mean over references of the subjects' values."""
    return mean_interval(list(values.values()), [subject[0] for subject in values])


def count_of(subjects: Collection[Subject]) -> str:
    """The number of samples and, in brackets, of references, as tables show n."""
    return f"{len(subjects)} ({len({subject[0] for subject in subjects})})"


class Comparison:
    """The rows of one experiment by setting, metric and subject.

    Args:
        layout: the experiment's settings, columns and tables.
        rows: of all settings and metrics.

    Raises:
        InputError: the layout selects by a name that no row has, or the rows do not belong in one table.
    """

    def __init__(self, layout: Layout, rows: Sequence[Row]) -> None:
        check_names(layout.selects(), rows)
        check_comparable(rows, layout.allow_mixed)
        self.layout, self.all_rows = layout, rows
        names = {name for select in layout.selects() for name in select}
        self._fields = sorted({"method", "adapter_scale", *names} & {*FIELDS})
        # By sanity baseline, empty for other rows, and metric. Rows of one kind are all selected, or none.
        self._rows: dict[tuple[str, str], list[tuple[int, Row]]] = defaultdict(list)
        kinds: dict[Hashable, int] = {}
        for row in rows:
            # Rows that were read share settings and strata.
            kind = id(row.settings), id(row.strata), *(getattr(row, name) for name in self._fields)
            number = kinds.setdefault(kind, len(kinds))
            self._rows[row.sanity_baseline, row.metric].append((number, row))
        self.base = next((setting for setting in layout.settings.values() if setting.base), None)
        self._verdicts: dict[str, dict[int, bool]] = defaultdict(dict)  # {selection: {kind: selected}}
        self._selected: dict[tuple[str, str, str], list[tuple[int, Row]]] = {}

    def has(self, column: Column) -> bool:
        """Whether a table shows the column: an optional column without rows is left out."""
        return bool(self._rows["", column.metric]) or not column.optional

    def rows(self, metric: str, setting: Setting, group: Mapping[str, str]) -> list[Row]:
        """One metric's rows of one setting in one group."""
        # A table asks for the same rows several times; matching a row is slow.
        of_setting = metric, repr(setting), ""
        if of_setting not in self._selected:
            rows, names = self._rows["", metric], self.layout.select
            named = {name for select in setting.alternatives for name in select}
            self._selected[of_setting] = self._chosen(
                rows, repr(setting), named, lambda row: setting.selects(row, names)
            )
        of_group = *of_setting[:2], repr(sorted(group.items()))
        if of_group not in self._selected:
            rows = self._selected[of_setting]
            self._selected[of_group] = self._chosen(rows, of_group[2], group, lambda row: matches(row, group))
        return [row for _, row in self._selected[of_group]]

    def _chosen(
        self,
        rows: Sequence[tuple[int, Row]],
        selection: str,
        names: Collection[str],
        selects: Callable[[Row], bool],
    ) -> list[tuple[int, Row]]:
        """The rows that a selection by `names` takes; one row of each kind is asked."""
        if not {*names} & {*FIELDS} <= {*self._fields}:  # of which kinds know nothing
            return [(kind, row) for kind, row in rows if selects(row)]
        verdicts, chosen = self._verdicts[selection], []
        for kind, row in rows:
            if kind not in verdicts:
                verdicts[kind] = selects(row)
            if verdicts[kind]:
                chosen.append((kind, row))
        return chosen

    def values(self, column: Column, setting: Setting, group: Mapping[str, str]) -> Values:
        """The column's value of each subject, after the subtraction that the column names."""
        values = by_subject(self.rows(column.metric, setting, group))
        if not column.minus:
            return values
        # The name of a metric: subtracted within the sample, as leakage minus chance.
        if column.minus != "base":
            return _minus(values, by_subject(self.rows(column.minus, setting, group)))
        if self.base is None:
            raise InputError(f"column {column.label} subtracts the base, and no setting is marked `base`")
        # The base model's sample of the same reference, edit and seed: the noise is shared.
        base = by_subject(self.rows(column.metric, self.base, group))
        if values and not base:
            raise InputError(
                f"column {column.label} subtracts the base model, of which there are no rows for"
                f" {dict(group)}; run that setting too ({self.base.select})"
            )
        return _minus(values, base)

    def line(self, table: TableLayout, name: str, group: Mapping[str, str]) -> Line:
        """The means of one setting in one group."""
        setting, columns = self.layout.settings[name], self._columns(table)
        cells: list[Cell | None] = [
            Cell(key, mean_of(self.values(column, setting, group)), column.digits)
            for key, column in columns.items()
        ]
        metrics = {column.metric for column in columns.values()}
        rows = [row for metric in metrics for row in self.rows(metric, setting, group)]
        # A score of a set of samples is no further sample, unless the table has nothing else.
        only_sets = all(row.metric in SET_VALUES for row in rows)
        subjects = {row.subject for row in rows if only_sets or row.metric not in SET_VALUES}
        # Lines of several models or windows may have several numbers of steps with the adapter on.
        steps = " / ".join(str(count) for count in sorted({row.adapter_steps for row in rows}))
        return Line(setting.labels, cells, count_of(subjects) if subjects else NONE, steps)

    def sanity_baselines(self, table: TableLayout, group: Mapping[str, str]) -> list[Line]:
        """One line for each sanity baseline that has rows in this group."""
        lines = []
        columns = self._columns(table)
        for baseline, label in SANITY_BASELINES.items():
            values = {key: self.baseline_values(column, baseline, group) for key, column in columns.items()}
            if subjects := set[Subject]().union(*values.values()):
                cells = [Cell(key, mean_of(values[key]), column.digits) for key, column in columns.items()]
                # A baseline has no setting: only the first column has a label.
                labels = [label, *[""] * (len(table.labels) - 1)]
                lines.append(Line(labels, [*cells], count_of(subjects), "", "sanity_baseline"))
        return lines

    def baseline_values(self, column: Column, baseline: str, group: Mapping[str, str]) -> Values:
        """As `values`. A sanity baseline has no seed, so the mean of the base over seeds is subtracted."""

        def values_of(metric: str) -> Values:
            return by_subject(row for _, row in self._rows[baseline, metric] if matches(row, group))

        values = values_of(column.metric)
        if column.minus != "base":
            return _minus(values, values_of(column.minus)) if column.minus else values
        # {(reference, edit kind): the base model's values, one a seed}
        by_edit: dict[tuple[str, str], list[float]] = defaultdict(list)
        for row in self.rows(column.metric, self.base, group) if self.base else ():
            by_edit[row.reference, row.edit_kind].append(row.value)
        base = {edit: float(np.mean(seeds)) for edit, seeds in by_edit.items()}
        return {subject: value - base.get(subject[:2], math.nan) for subject, value in values.items()}

    def difference(self, table: TableLayout, difference: Difference, group: Mapping[str, str]) -> Line:
        """The paired difference of two settings in one group; n is that of the column with most samples."""
        settings = [self.layout.settings[name] for name in (difference.ours, difference.theirs)]
        cells = []
        for key, column in self._columns(table).items():
            measured = MeasuredDifference.of(*(self.values(column, setting, group) for setting in settings))
            p = measured.p if key in table.corrected and len(measured.means) >= FEWEST else None
            cells.append(Cell(key, measured.interval, column.digits, p=p))
        # A column may abstain on some samples; the line's n is that of the fullest column.
        most = max((cell.interval for cell in cells), key=lambda interval: interval.n)
        n = f"{most.n} ({most.clusters})" if most.n else NONE
        return Line(difference.labels, [*cells], n, "", is_difference=True)

    def differences_to_default(self, table: TableLayout, group: Group) -> list[Block]:
        """The paired differences of every setting to the default setting, where the group has both."""
        if not table.default:
            return []
        settings, default = self.layout.settings, table.default
        lines = [
            self.difference(table, Difference(settings[name].labels, name, default), group.select)
            for name in table.settings
            if name != default
        ]
        labels = ", ".join(filter(None, settings[default].labels))
        title = f"{group.title}: difference to {labels}, paired"
        return [Block(title, [line for line in lines if line.n != NONE])]

    def check_subjects(self, table: TableLayout, group: Group) -> None:
        """Refuses a block whose settings were not measured on the same references, edits and seeds.

        Raises:
            InputError: names two settings and what one of them lacks.
        """
        # 1. All settings that a line of the table shows or subtracts, and that were run in this group.
        columns = list(self._columns(table).values())
        names = [*table.settings, *filter(None, [table.default])]
        names += [name for difference in table.differences for name in (difference.ours, difference.theirs)]
        settings = {name: self.layout.settings[name] for name in names}
        if self.base is not None and any(column.minus == "base" for column in columns):
            settings["base"] = self.base
        settings = {
            name: setting
            for name, setting in settings.items()
            if any(self.rows(column.metric, setting, group.select) for column in columns)
        }
        # 2. Whether all of them have the samples of the setting with most.
        for metric, optional in sorted(_metrics(columns)):
            subjects = {
                name: {row.subject for row in self.rows(metric, setting, group.select)}
                for name, setting in settings.items()
            }
            subjects = {name: samples for name, samples in subjects.items() if samples or not optional}
            most = max(subjects, key=lambda name: len(subjects[name]), default="")
            for name, samples in subjects.items():
                if missing := sorted(subjects[most] - samples, key=str):
                    raise InputError(
                        f"{table.file}, {group.title}: {metric} of setting {name} lacks {len(missing)} of the"
                        f" {len(subjects[most])} samples of {most}, for instance of {missing[0][0]}; all"
                        " lines of a table are of the same references, edits and seeds: run the sweep to its"
                        " end, or into an output= of its own"
                    )

    def _columns(self, table: TableLayout) -> dict[str, Column]:
        return {key: self.layout.columns[key] for key in table.columns}


def _minus(values: Values, subtracted: Values) -> Values:
    """NaN where a subject has nothing to subtract."""
    return {subject: value - subtracted.get(subject, math.nan) for subject, value in values.items()}


def _metrics(columns: Sequence[Column]) -> set[tuple[str, bool]]:
    """(metric, whether a setting may lack it) of all that columns show or subtract."""
    shown = {(column.metric, column.optional or column.metric in SET_VALUES) for column in columns}
    return shown | {(column.minus, column.optional) for column in columns if column.minus not in ("", "base")}
