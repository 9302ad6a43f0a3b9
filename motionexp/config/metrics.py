"""The metrics that there are, read from the files of `motionexp/metrics/` without importing them (no torch).

A module is a metric if it defines a subclass of `VideoMetric` or `SetMetric` of `motionexp/metrics/base.py`.
The metric's name is the module's name. What other rooms need to know of it is in the class, as literals.
"""

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from motionexp.config.targets import PACKAGE, defined_name, module_file
from motionexp.errors import InputError, one_of

Use = Literal["jobs", "probes"]
FOLDER = Path(__file__).parents[1] / "metrics"
BASES = ("VideoMetric", "SetMetric")
CHANCE_REFERENCES = 8
"""References against which chance is measured; one more is read, for a reference is never its own chance."""


@dataclass(frozen=True)
class MetricSpec:
    """What a metric's file says of it; the fields with defaults are literals of the metric's class.

    Attributes:
        name: the module's name; of a plugin's metric its import path.
        module: where the class is.
        class_name: of the metric.
        of_sets: whether it measures all samples of an edit together (a `SetMetric`); its rows have no seed.
        question: first line of the file's docstring, shown by `--help`.
        values: {name of a value: whether more is better, or None where neither is}, the main value first.
        needs: models and ground truth without which it cannot measure; see `Need` of the base classes.
        used_by: who measures it when no metrics are named.
        only_named: whether it is measured only where it is named.
        order: its place among the metrics, in summaries and in tables.
        summary: {name of a value: its heading in a job's summary}, in short words.
        columns: {key: fields of a `Column`}, its standard columns in tables. An optional column is left out
            of tables without its rows. A summary subtracts what the column of the same value subtracts, but
            not the base model.
    """

    name: str
    module: str
    class_name: str
    of_sets: bool
    question: str
    values: Mapping[str, bool | None] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    used_by: tuple[Use, ...] = ("jobs",)
    only_named: bool = False
    order: int = 1000
    summary: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def subtracted(self, value: str) -> str:
        """The value that a summary subtracts from `value`; empty where it subtracts none."""
        minus = (column.get("minus", "") for column in self.columns.values() if column["metric"] == value)
        return next((name for name in minus if name in self.values), "")


# The fields after the first five, which do not come from the class's body.
LITERALS = {entry.name for entry in fields(MetricSpec)[5:]}


def read_metric(file: Path, module: str, name: str, class_name: str = "") -> MetricSpec | None:
    """Read what a file says of its metric; None where it defines none (or none called `class_name`).

    Raises:
        InputError: a class attribute that others read is not a literal.
    """
    tree = ast.parse(file.read_text(), str(file))
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or class_name not in ("", node.name):
            continue
        # Both `VideoMetric` and `base.VideoMetric` name the class.
        bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        if base := next((base for base in bases if base in BASES), None):
            question = (ast.get_docstring(tree) or "").partition("\n")[0]
            literals = _literals(file, node)
            return MetricSpec(name, module, node.name, base == "SetMetric", question, **literals)
    return None


def _literals(file: Path, node: ast.ClassDef) -> dict[str, Any]:
    literals = {}
    for statement in node.body:
        name, value = defined_name(statement), getattr(statement, "value", None)
        if name not in LITERALS or value is None:
            continue
        try:
            literals[name] = ast.literal_eval(value)
        except ValueError as error:
            raise InputError(
                f"{file}: {node.name}.{name} must be a literal, because no check of settings imports a metric"
            ) from error
    return literals


_SPECS = (read_metric(file, f"{PACKAGE}.metrics.{file.stem}", file.stem) for file in FOLDER.glob("*.py"))
METRICS = {spec.name: spec for spec in sorted(filter(None, _SPECS), key=lambda spec: (spec.order, spec.name))}
"""All metrics of the folder by name, those of probes included."""


@cache
def _plugin(path: str) -> MetricSpec | None:
    module, _, class_name = path.rpartition(".")
    file = module_file(module)
    return None if file is None else read_metric(file, module, path, class_name)


def find_metric(name: str) -> MetricSpec | None:
    """A metric by its name, or by the import path of its class; None where there is no such metric."""
    return _plugin(name) if "." in name else METRICS.get(name)


def measurable(use: Use = "jobs") -> list[MetricSpec]:
    """All metrics that `use` can measure."""
    return [spec for spec in METRICS.values() if use in spec.used_by]


def chosen_metrics(names: Collection[str] | None, use: Use = "jobs") -> list[MetricSpec]:
    """The metrics of these names; None: all that `use` measures unless they are named.

    Raises:
        InputError: a name that is no metric.
    """
    if names is None:
        return [spec for spec in measurable(use) if not spec.only_named]
    if problems := list(metric_problems(names, use)):
        raise InputError("\n".join(problems))
    return [spec for spec in map(find_metric, names) if spec is not None]


def metric_problems(names: Collection[str] | None, use: Use = "jobs") -> Iterator[str]:
    """What is wrong with `metrics=`: names that `use` does not measure.

    Names with dots are import paths of plugins' classes, whose files are read and not imported.
    """
    specs = {name: find_metric(name) for name in names or ()}
    unknown = [name for name, spec in specs.items() if spec is None or use not in spec.used_by]
    if unknown:
        choices = one_of(unknown[0], (spec.name for spec in measurable(use)))
        yield f"metrics=[{','.join(unknown)}]: {choices}, a plugin's import path, or null for all"


def set_metrics(names: Collection[str] | None) -> list[str]:
    """Those of the named metrics that measure all samples of an edit together."""
    specs = ((name, find_metric(name)) for name in names or ())
    return [name for name, spec in specs if spec is not None and spec.of_sets]


SET_VALUES = frozenset(value for spec in METRICS.values() if spec.of_sets for value in spec.values)
"""Values of all samples of an edit together."""


def check_metrics(metrics: Collection[str] | None, blind: Sequence[str] = ()) -> None:
    """Check metrics that are asked for by name.

    Args:
        metrics: names; None: all that the data allow.
        blind: names of references without ground truth.

    Raises:
        InputError: a name that is no metric, or a metric from ground truth where a reference has none.
    """
    specs = chosen_metrics(metrics)
    unfit = [spec.name for spec in specs if "reference_truth" in spec.needs]
    if metrics is not None and blind and unfit:
        raise InputError(
            f"metrics=[{', '.join(unfit)}]: measured from ground truth, and {blind[0]} has none;"
            " leave them out, or metrics=null for all that the data allow"
        )


def needs_chance_references(metrics: Collection[str] | None) -> bool:
    """Whether any of the metrics (None: all) has a level of chance, for which other references are read."""
    return any({"reference_truth", "tracks"} & set(spec.needs) for spec in chosen_metrics(metrics))
