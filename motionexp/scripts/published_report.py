"""The published results as pages, into outputs/report/: `make report`.

The tables are those of all experiments. The videos lie in the repository, small ones of eight references.
`python -m motionexp.scripts.published_report OUTPUTS ...` chooses them again from folders of results.
"""

import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.jobs.pages.report.content import Content, Source, facts_of
from motionexp.jobs.pages.report.details import series_of
from motionexp.jobs.pages.report.media import read_stored, write_media, write_small
from motionexp.jobs.pages.report.pages import check_folder, write_pages
from motionexp.jobs.pages.report.probes import ProbeUnit, boundaries_of, probes_of, write_strip
from motionexp.jobs.pages.report.references import references_of
from motionexp.jobs.pages.report.samples import ShownSample, samples_of, scores_of
from motionexp.probes.analysis.published import read_analysis
from motionexp.results.cell_state import DONE, STATUS
from motionexp.results.comparisons import Comparison
from motionexp.results.formats import Table
from motionexp.results.published import published_layouts, read_published, root_of, write_published
from motionexp.results.rows import Row, read_rows
from motionexp.results.tables import build
from motionexp.scripts.programs import exit_code

FOLDER = Path("outputs/report")
RESULTS = Path("results/shapes")
VIDEOS = RESULTS / "videos"
ROWS = VIDEOS / "rows.parquet"
REFERENCES = (
    *("09-wander-green-square", "10-wander-red-square", "11-wander-violet-square"),
    *("33-stop-and-go-pink-cross", "34-zigzag-lime-square", "35-hop-blue-star"),
    *("50-right-pink-moon", "52-down-orange-star"),
)
"""Those of experiment gate that all three models were tuned on."""
PROBED = "33-stop-and-go-pink-cross"
"""The reference whose probe is published with its videos."""
KINDS = ("multiple", "background")
OF_PROBES = ("shares", "gaps", "*-pairs", "*-onsets", "*-trade-off")
"""Patterns of the published figures of probes."""
FPS = 8.0
ABOUT = (
    "Tables are of all references of their experiments. Videos and plots are of eight references and two"
    " kinds of edits: those of experiment gate, and on tiny_latte, with edits of kind multiple alone,"
    " every method at its default window and at others from 500 to 900. No rate or weight was searched for"
    " these methods. Adapters are not published; the command of a sample trains its own. The probe with"
    " videos is of one reference; the boundaries and figures are of all.",
)


def chosen_rows(output: Path) -> Iterator[Row]:
    """The rows of the samples to publish: of the eight references, at the adapter's full strength."""
    select = {"reference": "|".join(REFERENCES), "edit_kind": "|".join(KINDS), "seed": "0", "tau_start": ""}
    for row in read_rows(output, select):
        is_full = row.method == "base" or row.adapter_scale == 1
        if is_full and row.training_seed in (None, 0) and not row.sanity_baseline:
            yield row


def is_shown(method: str, words: Sequence[str]) -> bool:
    """Whether a setting's words are those of experiment gate, or of a method at its defaults."""
    names = {word.partition("=")[0] for word in words}
    of_gate = names <= {"tau", "train_steps", "sampling_tau"}
    return method == "base" or of_gate or tuple(words[1:]) == (f"method={method}",)


def choose(outputs: Sequence[Path]) -> None:
    """Write small videos, their scores by frame and their rows below `results/`; of equal ids the first."""
    shutil.rmtree(VIDEOS, ignore_errors=True)
    by_setting: dict[tuple[str, ...], dict[str, ShownSample]] = defaultdict(dict)
    for output in outputs:
        for sample in samples_of(chosen_rows(output), output):
            row = sample.row
            if is_shown(row.method, sample.settings):
                setting = row.model, row.edit_kind, *sample.settings
                by_setting[setting].setdefault(row.reference, sample)
    rows = [
        row
        for of_setting in by_setting.values()
        if of_setting.keys() == {*REFERENCES}  # all settings are shown on equal references
        for sample in of_setting.values()
        for row in _written(sample)
    ]
    write_published(ROWS, rows + [row for unit in _choose_units(outputs) for row in unit.rows])


def _choose_units(outputs: Sequence[Path]) -> list[ProbeUnit]:
    """Write the small videos of the probes of one reference; of equal ids the first."""
    units: dict[str, ProbeUnit] = {}
    for output in outputs:
        rows = [row for row in read_rows(output, {"reference": PROBED}) if row.tau_start]
        for unit in probes_of(rows, output, Source(output).cells()).units:
            units.setdefault(unit.key, unit)
    for unit in units.values():
        _write_unit(unit)
    return [*units.values()]


def _write_unit(unit: ProbeUnit) -> None:
    """Write a unit's small videos and its strip, in the layout of a cell's folder."""
    folder = VIDEOS / unit.model / unit.cell.name
    (folder / "media").mkdir(parents=True, exist_ok=True)
    status = {"state": DONE, "unit": unit.name, "probe": unit.kind}
    write_whole(folder / STATUS, f"{json.dumps(status)}\n".encode())
    write_strip(folder, unit)
    for pair in unit.pairs.values():
        write_small(folder / "media", pair.key, read_stored(pair.video), FPS)
        (folder / "media" / f"{pair.key}.webp").unlink()  # a poster is made again from the video


def _written(sample: ShownSample) -> list[Row]:
    """Write the small video of a sample and its scores by frame; returns its rows, which name the video."""
    if sample.video is None:
        raise InputError(f"sample {sample.row.sample_id}: its row names no file")
    name = sample.key
    write_small(VIDEOS, name, read_stored(sample.video), FPS)
    (VIDEOS / f"{name}.webp").unlink()  # a poster is made again from the video
    series = {
        metric: [None if value is None else float(f"{value:.4g}") for value in values]
        for metric, values in series_of(sample).items()
    }
    text = json.dumps(series, separators=(",", ":"))
    write_whole(VIDEOS / f"{name}.series.json", f"{text}\n".encode())
    return [replace(row, sample_file=f"{VIDEOS.name}/{name}.mp4") for row in sample.rows]


def figures_of_probes() -> dict[str, Path]:
    """{name: path} of the published figures of probes."""
    paths = [path for name in OF_PROBES for path in sorted((RESULTS / "figures").glob(f"{name}.svg"))]
    return {path.stem.replace("-", ": ", 1).replace("-", " "): path for path in paths}


def published_tables() -> Iterator[Table]:
    """The tables of all experiments whose rows are published."""
    for path, layout in published_layouts([]):
        if layout.tables:
            comparison = Comparison(layout, read_published(root_of(path) / layout.rows))
            for table in layout.tables:
                yield from build(comparison, table)


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Write the report, from the videos of some folders of results where they are named."""
    if arguments:
        choose([Path(argument) for argument in arguments])
    check_folder(FOLDER)
    rows = read_published(ROWS)
    samples = samples_of(rows, RESULTS)
    probes = probes_of(rows, RESULTS, Source(RESULTS).cells())
    analysis = read_analysis([])
    content = Content(
        "motionexp: published results",
        about=ABOUT,
        samples=samples,
        references=references_of(samples),
        scores=scores_of(samples),
        probes=replace(
            probes,
            boundaries=boundaries_of(analysis[1].rows) if analysis else (),
            figures=figures_of_probes(),
        ),
        tables=list(published_tables()),
        facts={"": facts_of(rows)},
    )
    write_media(FOLDER, content)
    write_pages(FOLDER, content)
    print(f"report: {FOLDER / 'index.html'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
