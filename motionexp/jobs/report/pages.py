"""The pages of a report, written from templates. Texts out of data are escaped, and never run."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from motionexp.errors import InputError
from motionexp.files import version, write_whole
from motionexp.jobs.failures import Failure
from motionexp.jobs.report.plots import plots_of
from motionexp.jobs.report.references import ShownReference
from motionexp.jobs.report.samples import Score, ShownSample
from motionexp.results.formats import Table, printable

HERE = Path(__file__).parent
MARK = "report.json"
"""Says that a folder is a report, which may be written again."""
ASSETS = "assets"
FILTERS = {
    "source": "sweep",
    "model": "backbone",
    "method": "method",
    "tau": "τ",
    "kind": "edit kind",
    "seed": "seed",
    "training_seed": "training seed",
    "setting": "setting",
    "reference": "reference",
}
"""{what samples are filtered by: its heading}."""


@dataclass(frozen=True)
class Media:
    """A small video of a report: its size in pixels, its frames and their rate."""

    width: int
    height: int
    frames: int
    fps: float


@dataclass
class Content:
    """All that a report shows.

    Attributes:
        title: of the report.
        samples, references, scores: see there.
        media: {key of a sample, or page of a reference: its small video}; those without one have none.
        problems: {key or page: why it has no video}.
        ranges: {metric: least and most of its values by frame, over all samples}.
        tables: finished tables.
        notes: sentences of the overview, as why there is no table.
        facts: {heading: values in words} of what was run.
        failures: cells that failed, each with the text of its log.
    """

    title: str
    samples: Sequence[ShownSample] = ()
    references: Sequence[ShownReference] = ()
    scores: Sequence[Score] = ()
    media: Mapping[str, Media] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    facts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    failures: Sequence[tuple[Failure, str]] = ()

    def heading(self, name: str) -> str:
        """Of a metric, in words."""
        of_score = (score.heading for score in self.scores if score.name == name)
        return next(of_score, name.replace("_", " "))


def check_folder(folder: Path) -> None:
    """Raises InputError for a folder with files that are no report, which would be mixed with its pages."""
    if folder.is_dir() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise InputError(f"folder={folder}: has other files; name a new folder, or one of a former report")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"folder={folder}: is a file; name a new folder")


def write_pages(folder: Path, content: Content) -> None:
    """Write all pages of a report, and what they share, into a folder. Pages of a former report go."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MARK, (json.dumps({"motionexp": version()}) + "\n").encode())
    shutil.copytree(HERE / ASSETS, folder / ASSETS, dirs_exist_ok=True)
    for path in [*folder.glob("*.html"), *folder.glob("references/*.html")]:
        path.unlink()
    environment = _environment()
    names = ["index", "samples", *(["failures"] if content.failures else [])]
    shared = {
        "content": content,
        "links": [(name, f"{name}.html") for name in names],
        "version": version(),
        "filters": FILTERS,
        "plots": plots_of(content.samples, content.scores),
    }

    def write(template: str, path: str, samples: Sequence[ShownSample], **about: Any) -> None:
        root = "../" * path.count("/")
        page = environment.get_template(f"{template}.html")
        text = page.render(**shared, **about, samples=samples, choices=choices_of(samples), root=root)
        write_whole(folder / path, text.encode(errors="backslashreplace"))

    for name in names:
        write(name, f"{name}.html", content.samples)
    (folder / "references").mkdir(exist_ok=True)
    for reference in content.references:
        write("reference", f"references/{reference.page}.html", reference.samples, reference=reference)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "shown": printable}
    environment.globals |= {"values_of": values_of, "isnan": math.isnan}
    return environment


def number(value: float, digits: int = 2) -> str:
    """A number as the tables print it; a dash for NaN."""
    if math.isnan(value):
        return "\N{EN DASH}"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def values_of(sample: ShownSample) -> dict[str, str]:
    """{filter: the sample's value, as text}."""
    row = sample.row
    return {
        "source": sample.source,
        "model": row.model,
        "method": row.method,
        "tau": f"{row.tau:g}",
        "kind": row.edit_kind,
        "seed": str(row.seed),
        "training_seed": "" if row.training_seed is None else str(row.training_seed),
        "setting": " ".join(sample.settings),
        "reference": f"{row.suite}/{row.reference}",
    }


def choices_of(samples: Sequence[ShownSample]) -> dict[str, dict[str, int]]:
    """{filter: {value: samples}} of the filters that have several values."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in FILTERS}
    for sample in samples:
        for name, value in values_of(sample).items():
            counts[name][value] += 1
    return {
        name: dict(sorted(count.items(), key=lambda entry: natural(entry[0])))
        for name, count in counts.items()
        if len(count.keys() - {""}) > 1
    }


def natural(text: str) -> tuple[int, float, str]:
    """Sorts numbers by their size, and before other texts."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text
