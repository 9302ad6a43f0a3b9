"""Which results there are: what `list runs` prints, and `index.md` beside folders whose names are hashes."""

import math
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import numpy as np
from rich.console import Console
from rich.text import Text

from motionexp.config.renames import renamed_row
from motionexp.config.schema import method_name
from motionexp.config.yaml_file import read_yaml
from motionexp.errors import InputError, one_of
from motionexp.files import locked, write_whole
from motionexp.results.cell_state import DONE, STATES, read_state
from motionexp.results.compaction import compacted_in
from motionexp.results.formats import Grid, decimal, markdown_text, printable
from motionexp.results.rows import ROWS_NAME, Row, read_lines
from motionexp.results.selection import changed_settings, check_values, has_value, text_in
from motionexp.results.terminal import print_grid

INDEX = "index.md"
Fields = Mapping[str, Any] | Row
MOST_LINKS = 8
"""To videos of a run."""
SCORES = {
    "motion similarity": ("velocity_similarity", ""),
    "background leakage": ("nuisance_similarity", "nuisance_chance"),
    "flow similarity": ("flow_similarity", ""),
    "text alignment": ("text_alignment", ""),
}
"""{heading: (metric, metric that is subtracted)}."""
OF_TRUTH, IN_ITS_PLACE = "motion similarity", "flow similarity"
"""Of real clips there is no motion similarity."""


@dataclass(frozen=True)
class Sampled:
    """The samples of a run with one setting of the sampling.

    Attributes:
        settings: tau or what made the samples, then what differs from the defaults, as on a command line.
        samples: that have scores.
        scores: {heading: mean}; those without a value are absent.
    """

    settings: tuple[str, ...] = ()
    samples: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A cell.

    Attributes:
        folder: of the cell; its name is an id.
        reference: that it is of.
        state: as in `status.json`; `interrupted` also where it says running and no process has the cell.
        error: of a failed run, else empty.
        sampled: its samples, by their settings; one entry at least.
    """

    folder: Path
    reference: str
    state: str
    error: str
    sampled: Sequence[Sampled]


def runs_in(
    folder: Path,
    select: Mapping[str, str] = MappingProxyType({}),
    texts: Mapping[str, set[str]] | None = None,
    cells: Collection[Path] | None = None,
) -> list[Run]:
    """The runs of a folder OUTPUT/SUITE/MODEL, by reference and settings.

    A run with a damaged file is one of the state `damaged`, whatever is selected.

    Args:
        select: {a setting, a field or a stratum of rows, or `state`: its values with commas between}.
        texts: gets the values of each that there are, among what has the values before it.
        cells: the folders of those that are looked at; None: all.
    """
    texts = {name: set() for name in select} if texts is None else texts
    stored_cells = (path.parent for path in folder.glob("*/status.json") if path.parent.name[0] != ".")
    runs: list[Run] = []
    compacted = compacted_in(folder)
    stored = compacted.rows() if compacted else {}
    for cell in stored_cells:
        if cells is not None and cell not in cells:
            continue
        try:
            is_stored = compacted is not None and compacted.has(cell / ROWS_NAME)
            rows = stored[cell.name] if is_stored else _rows(cell / ROWS_NAME)
            runs += [run] if (run := _run_of(cell, rows, select, texts)) else []
        except (InputError, OSError) as error:
            runs.append(Run(cell, "", "damaged", str(error), [Sampled()]))
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            problem = f"{cell}: an entry of its files has another type than a job writes ({error})"
            runs.append(Run(cell, "", "damaged", problem, [Sampled()]))
    return sorted(runs, key=lambda run: (run.reference, run.sampled[0].settings, run.folder.name))


def folders_of(output: Path) -> list[Path]:
    """The folders OUTPUT/SUITE/MODEL that have runs.

    Raises:
        InputError: there is none.
    """
    paths = {path.parents[1] for path in output.glob("*/*/*/status.json")}
    if folders := sorted(path for path in paths if not path.parent.name.startswith(".")):
        return folders
    lacks = "no run there" if output.is_dir() else "no such folder"
    raise InputError(
        f"output={output}: {lacks}; a job writes to OUTPUT/SUITE/MODEL/ID/, and output= is OUTPUT, or the"
        " folder of one sweep, OUTPUT/sweeps/ID"
    )


def print_runs(
    console: Console,
    output: Path,
    select: Mapping[str, str] = MappingProxyType({}),
    cells: Collection[Path] | None = None,
) -> None:
    """Print the runs below an output folder: settings that differ, state, scores and paths.

    Args:
        select, cells: as of `runs_in`.

    Raises:
        InputError: there is none.
    """
    runs_of = _selected_runs(output, select, cells)
    for folder, runs in runs_of.items():
        by_reference: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            by_reference[run.reference].append(run)
        if not by_reference:
            continue
        for reference, of_reference in by_reference.items():
            header, lines = _lines(of_reference, "\n")
            title = f"{folder}/, {reference}"
            shown = [["\n".join(map(printable, text.split("\n"))) for text in line] for line in lines]
            print_grid(console, header, shown, title=printable(title), sides="lllr")
            for run in of_reference:
                if run.error:
                    console.print(Text(printable(f"{run.folder.name}: {run.error}")))
        if (folder / INDEX).exists():  # the first job that ends well writes it
            console.print(Text(printable(f"with links to each: {folder / INDEX}")), soft_wrap=True)
        console.print()


def _selected_runs(
    output: Path, select: Mapping[str, str], cells: Collection[Path] | None
) -> dict[Path, list[Run]]:
    """The runs of each folder. Raises InputError where there is none, or none with one of the values."""
    for state in select.get("state", DONE).split(","):
        if state not in STATES:
            raise InputError(f"state={state}: {one_of(state, STATES)}")
    select = {name: select[name] for name in sorted(select, key="state".__ne__)}
    texts: dict[str, set[str]] = {name: set() for name in select}
    runs_of = {folder: runs_in(folder, select, texts, cells) for folder in folders_of(output)}
    if not any(runs_of.values()) and not select:
        raise InputError(f"output={output}: no cell of the sweep has begun; `status` says what it waits for")
    for name, values in select.items():
        # That no run is in one of several states is an answer.
        if name != "state" or not texts[name] & {*values.split(",")}:
            check_values(name, values, texts[name], (), output)
    if not any(runs_of.values()):
        words = " ".join(f"{name}={values}" for name, values in select.items())
        raise InputError(f"{words}: no run in {output} has it")
    return runs_of


def write_index(folder: Path) -> None:
    """Write `index.md` of a folder OUTPUT/SUITE/MODEL: a line for each run, with links to its files."""
    with locked(folder / f".{INDEX}.lock"):
        runs = runs_in(folder)
        header, lines = _lines(runs, " ")
        linked = [
            [
                _link(name, f"{name}/") if name else "",
                *map(markdown_text, (run.reference, *rest)),
                _links(run.folder) if name else "",
            ]
            for (run, _), (name, *rest) in zip(_entries(runs), lines, strict=True)
        ]
        grid = Grid([header[0], "reference", *header[1:], "videos"], linked, "llllrrrrl")
        text = f"# {markdown_text(f'{folder.parent.name}, {folder.name}')}\n\n{grid.markdown()}\n"
        if (folder / "grids").is_dir():
            text += "\nSamples of several settings side by side: [grids](grids/)\n"
        write_whole(folder / INDEX, text.encode(errors="backslashreplace"))


def _links(cell: Path) -> str:
    media = sorted((cell / "media").glob("*.mp4"))
    links = [
        _link(path.stem.rpartition("-")[0], f"{cell.name}/media/{path.name}") for path in media[:MOST_LINKS]
    ]
    return ", ".join(links + ["..."] * (len(media) > MOST_LINKS))


def _link(text: str, path: str) -> str:
    return f"[{markdown_text(text)}]({quote(os.fsencode(path), safe='/+')})"


def _entries(runs: Sequence[Run]) -> list[tuple[Run, Sampled]]:
    return [(run, sampled) for run in runs for sampled in run.sampled]


def _lines(runs: Sequence[Run], between: str) -> tuple[list[str], list[list[str]]]:
    """The header, and of each run its name, settings, state, number of samples and scores.

    Samples with other settings of the same run are lines without a name.
    """
    entries = _entries(runs)
    shown = [name for name in SCORES if any(name in sampled.scores for _, sampled in entries)]
    if OF_TRUTH in shown:
        shown = [name for name in shown if name != IN_ITS_PLACE]
    lines = [
        [
            run.folder.name if sampled is run.sampled[0] else "",
            between.join(sampled.settings),
            run.state if sampled is run.sampled[0] else "",
            str(sampled.samples),
            *(decimal(sampled.scores.get(name, math.nan)) for name in shown),
        ]
        for run, sampled in entries
    ]
    return ["run", "settings", "state", "n", *shown], lines


def _run_of(
    cell: Path, stored: Iterable[Fields], select: Mapping[str, str], texts: Mapping[str, set[str]]
) -> Run | None:
    """The run of a cell with its stored rows; None where it has nothing of what is selected (`runs_in`)."""
    status = read_state(cell)
    rows = [
        row
        for row in stored
        if row.get("seed") is not None and not row.get("strata", {}).get("sanity_baseline")
    ]
    chosen: list[Fields] = [*rows] or [_planned(cell / "config.yaml", status.about)]
    for name, values in select.items():
        if name == "state":
            texts[name].add(status.state)
            chosen = chosen if status.state in values.split(",") else []
            continue
        texts[name].update(text_in(row, name) for row in chosen)
        chosen = [row for row in chosen if has_value(row, name, values)]
    if not chosen:
        return None
    sampled = list(_sampled(chosen)) if rows else [Sampled(_settings_of(chosen[0]))]
    return Run(cell, status.reference, status.state, status.error, sampled)


def _sampled(rows: Sequence[Fields]) -> Iterator[Sampled]:
    """The samples of rows, by their settings in alphabetical order."""
    # The values of each setting, metric and sample.
    values: dict[tuple[str, ...], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        metric: Any = row.get("metric")
        sample: Any = row.get("sample_id")
        value: Any = row.get("value")
        values[_settings_of(row)][metric][sample] = math.nan if value is None else value
    for settings, by_metric in sorted(values.items()):
        samples = set[str]().union(*by_metric.values())
        scores = {name: _mean(by_metric, metric, minus) for name, (metric, minus) in SCORES.items()}
        numbers = {name: score for name, score in scores.items() if not math.isnan(score)}
        yield Sampled(settings, len(samples), numbers)


def _mean(by_metric: Mapping[str, Mapping[str, float]], metric: str, minus: str) -> float:
    subtracted = by_metric.get(minus, {})
    values = [
        value - (subtracted.get(sample, math.nan) if minus else 0.0)
        for sample, value in by_metric.get(metric, {}).items()
    ]
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) + 0.0 if numbers else math.nan


def _settings_of(row: Fields) -> tuple[str, ...]:
    """The settings of a row, each as on a command line."""
    if not row.get("method"):
        return ()  # nothing is stored yet
    if row.get("tau_start"):
        return (f"probe={row.get('method')}",)
    return settings_in_words(row.get("settings", {}), str(row.get("method")), row.get("tau"))


def _planned(path: Path, status: Mapping[str, Any]) -> dict[str, Any]:
    """Of a cell without scores what its rows would say, from the settings that a job stores first."""
    cell = path.parent
    about = {
        "reference": status.get("reference", ""),
        "suite": cell.parents[1].name,
        "model": cell.parent.name,
    }
    if not path.exists():
        return {**about, "method": ""}
    settings = read_yaml(path)
    if settings.get("probe"):
        return {
            **about,
            "method": settings["probe"],
            "settings": settings,
            "tau": 1000.0,
            "tau_start": "none",
        }
    tau = status.get("tau", settings.get("tau"))
    method = "base" if tau == 1000 else method_name(settings["method"])
    return {**about, "method": method, "settings": settings, "tau": tau}


def settings_in_words(settings: Mapping[str, Any], method: str, tau: Any) -> tuple[str, ...]:
    """Tau or what made the samples, then the settings that differ from the defaults, as on a command line."""
    if "model" not in settings:
        return ("another system",)
    first = "base model" if method == "base" else f"tau={tau:g}"
    changed = changed_settings(settings, method)
    return (first, *(f"{name}={_plain(value)}" for name, value in changed.items()))


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_plain, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for number, plain in read_lines(path):
        try:
            row = renamed_row(plain)
            if not {"metric", "value", "sample_id", "method", "tau", "strata"} <= row.keys():
                raise TypeError
        except (TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: not a row") from error
        yield row
