"""The pages of a report, written from templates. Texts out of data are escaped, and never run."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from motionexp.errors import InputError
from motionexp.files import file_name, version, write_whole
from motionexp.jobs.pages.report.content import Content, natural
from motionexp.jobs.pages.report.plots import MOST_LINES, plot_groups
from motionexp.jobs.pages.report.probes import ENDS, STARTS
from motionexp.jobs.pages.report.samples import ShownSample
from motionexp.results.formats import decimal, printable

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
    names = ["index"]
    names += ["samples"] if content.samples else []
    names += ["probes"] if content.probes.units or content.probes.figures else []
    names += ["failures"] if content.failed else []
    shared = {
        "content": content,
        "links": [(name, f"{name}.html") for name in names],
        "version": version(),
        "filters": FILTERS,
        "groups": plot_groups(content.samples, content.scores),
        "most_lines": MOST_LINES,
    }

    def write(template: str, path: str, samples: Sequence[ShownSample], **about: Any) -> None:
        root = "../" * path.count("/")
        page = environment.get_template(f"{template}.html")
        text = page.render(**shared, **about, samples=samples, choices=choices_of(samples), root=root)
        write_whole(folder / path, text.encode(errors="backslashreplace"))

    for name in names:
        write(name, f"{name}.html", content.samples, **(_of_probes(content) if name == "probes" else {}))
    (folder / "references").mkdir(exist_ok=True)
    for reference in content.references:
        write("reference", f"references/{reference.page}.html", reference.samples, reference=reference)


def _of_probes(content: Content) -> dict[str, Any]:
    """What the page of probes needs beside the content."""
    units = content.probes.units
    pages = {(reference.suite, reference.name): reference.page for reference in content.references}
    return {
        "starts": STARTS,
        "ends": ENDS,
        "nan": math.nan,
        "metrics": {name: heading for unit in units for name, heading in unit.metrics.items()},
        "references_of_units": {
            unit.key: pages[place]
            for unit in units
            if unit.rows and (place := (unit.rows[0].suite, unit.rows[0].reference)) in pages
        },
        "figure_name": file_name,
    }


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": decimal, "shown": printable}
    environment.globals |= {"values_of": values_of, "isnan": math.isnan}
    return environment


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
