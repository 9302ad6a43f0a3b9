"""Cases of what is text: captions, suites, lists of videos, experiments, rows, names."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from motionexp.data.base import Edit
from motionexp.data.clip import Clip
from motionexp.data.davis import DAVIS
from motionexp.data.external_videos import check_lengths, find_videos
from motionexp.data.folder import VideoFolder
from motionexp.data.tgve import TGVE, read_table
from motionexp.data.videos import write_png
from motionexp.files import MOST_CHARACTERS, file_name
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.experiment import experiment_jobs
from motionexp.jobs.submission import write_submission
from motionexp.results.claims import finding_of
from motionexp.results.claims_table import claims_csv, claims_markdown, claims_table
from motionexp.results.columns import to_table, write_columns
from motionexp.results.comparisons import Comparison
from motionexp.results.designs import DESIGNS, check_unchanged, record_design
from motionexp.results.formats import to_markdown
from motionexp.results.latex import to_latex
from motionexp.results.layout_file import read_layout
from motionexp.results.published import read_published
from motionexp.results.rows import as_json, dump_line, read_rows, to_frame
from motionexp.results.tables import build, write_tables
from tests.fuzz.damage import Damage
from tests.support.made_rows import TOY_LAYOUT, made_row, toy_rows
from tests.support.made_suites import HEADER, HEADINGS, jpeg, made_lines
from tests.support.published_lines import to_published
from tests.support.squares import Squares

VIDEO = {"video": "a", "caption": "a dog", "edits": {"style": "a red dog", "object": "a cat"}, "stride": 1}
PROMPTS = [
    {"video": name, "caption": "a dog", "subject": "a cat", "scene": "a sea", "frame_range": [0, 4, 2]}
    for name in ("bear", "cow")
]
SWEEP = "model=tiny_latte tau=0,700,1000 references=1 precision=fp32"


def frames(folder: Path, count: int = 4, size: tuple[int, int] = (16, 16)) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index:05d}.jpg").write_bytes(jpeg(index, size))


def use(reader: Any) -> None:
    """Everything that a job asks of a suite's reader."""
    for name in reader.names()[:2]:
        reader.describe(name)
        if reader.long_enough(name, 2):
            reader.read(name, 2, 16, 16)


# suites


def captions_csv(damage: Damage, folder: Path) -> None:
    rows = [
        ["video", "caption", "style", "start", "stride"],
        ["a", "a dog", "a red, dog", "0", "2"],
        ["a", "b"],
    ]
    (folder / "captions.csv").write_bytes(damage.table(rows[:2]))
    frames(folder / "a")
    use(VideoFolder(folder))


def _captions(damage: Damage, folder: Path, suffix: str, dump: Callable[[Any], str]) -> None:
    text = dump(damage.tree([VIDEO]))
    (folder / f"captions{suffix}").write_bytes(damage.encoded(text))
    frames(folder / "a")
    use(VideoFolder(folder, fps=8.0 if damage.maybe(0.2) else None))


def captions_json(damage: Damage, folder: Path) -> None:
    _captions(damage, folder, ".json", damage.dumped)


def captions_yaml(damage: Damage, folder: Path) -> None:
    _captions(damage, folder, ".yaml", lambda content: as_yaml(damage, content))


def as_yaml(damage: Damage, content: Any) -> str:
    """YAML of either style; a text that the tree holds raw is valid in the style of JSON alone."""
    text = damage.dumped(content)
    if damage.random.random() < 0.5:
        return text
    with suppress(ValueError, RecursionError, yaml.YAMLError):
        return str(yaml.safe_dump(json.loads(text), allow_unicode=damage.random.random() < 0.5))
    return text


@cache
def _tgve_rows() -> list[list[str]]:
    rows = [HEADER]
    for source, lines in made_lines().items():
        rows += [[HEADINGS[source]], *([*line, "https://..."] for line in lines), [""] * len(HEADER)]
    return rows


def tgve(damage: Damage, folder: Path) -> None:
    (folder / "LOVEU-TGVE-2023_Dataset.csv").write_bytes(damage.table(_tgve_rows()))
    read_table(folder)
    if damage.maybe(0.98):
        return
    # Frames of which the counts alone are looked at: one file under many names.
    image = folder / "image"
    image.write_bytes(jpeg(0))
    for source, lines in made_lines().items():
        for name, *_ in lines:
            images = folder / source / "480p_frames" / name
            images.mkdir(parents=True)
            for index in range(32 if source != "youtube_480p" else 128):
                os.link(image, images / f"{index:05d}.jpg")
    use(TGVE(folder))


def davis(damage: Damage, folder: Path) -> None:
    content = damage.tree(PROMPTS)
    text = damage.dumped(content)
    suffix = damage.random.choice(("json", "js"))
    if suffix == "js":
        head = damage.text("const prompts = ") if damage.maybe(0.1) else "const prompts = "
        text = f"{head}{text};\n"
    (folder / f"prompts.{suffix}").write_bytes(damage.encoded(text))
    for name in ("bear", "cow"):
        frames(folder / "JPEGImages" / "480p" / name, size=(480, 32))
    use(DAVIS(folder, folder / f"prompts.{suffix}"))


def videos_csv(damage: Damage, folder: Path) -> None:
    columns = ["video", "reference", "edit", "caption", "seed"]
    rows = [
        columns,
        ["a", "one", "style", "", "0"],
        ["a", "two", "", "two blue", "1"],
        ["a", "one", "x", "new", ""],
    ]
    (folder / "videos.csv").write_bytes(damage.table(rows))
    frames(folder / "a")
    reader = Squares()
    kinds = [damage.text("style")] if damage.maybe(0.1) else None
    videos = find_videos(folder, reader, ["one", "two"], kinds)
    check_lengths(videos, reader, 4)
    for video in videos:
        SampleRequest(video.edit, video.seed, "a")
        assert json.dumps(video.seed)


# experiments and rows


@cache
def _layout() -> dict[str, Any]:
    layout = yaml.safe_load(TOY_LAYOUT)
    (table,) = layout["tables"]
    dominance = {"motion": "motion", "leakage": "leak", "ours": ["window"], "theirs": ["every"]}
    points = {key: table[key] for key in ("title", "labels", "groups")} | {"settings": []}
    points |= {"file": "results/shapes/points", "dominance": {**dominance, "scales": [0.5, 1]}}
    difference = {"table": "toy", "group": "motion-dominant", "ours": "window", "theirs": "every"}
    difference |= {"scales": [1, 0.5], "expected": {"motion": "more", "leak": "equal", "text": "untested"}}
    claim = {"statement": "It moves", "differences": [difference]}
    tables = {"tables": [table, points], "margin": 0.05, "n": 2, "decision": "Dominance."}
    return layout | tables | {"sweep": [SWEEP], "claims": [claim]}


@cache
def _rows() -> list[Any]:
    return [row for row in toy_rows() if row.reference in ("r0", "r3") and row.seed == 0]


def experiment(damage: Damage, folder: Path) -> None:
    path = folder / "experiments" / "mine.yaml"
    path.parent.mkdir()
    path.write_bytes(damage.encoded(as_yaml(damage, damage.tree(_layout()))))
    layout = read_layout(path)
    write_tables(folder, layout, _rows())
    if not damage.maybe(0.85):
        experiment_jobs(str(path), [f"output={folder / 'out'}"])
    # A claim needs five references.
    rows = [replace(row, reference=f"{row.reference} {copy}") for row in _rows() for copy in range(5)]
    for claim in layout.claims:
        finding = finding_of(claim, "mine", Comparison(layout, rows))
        claims_markdown([finding]), to_latex([claims_table([finding])], "claims"), claims_csv([finding])


def designs(damage: Damage, folder: Path) -> None:
    path = folder / "experiments" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(TOY_LAYOUT)
    layout = read_layout(path)
    record_design(path, layout)
    content = damage.tree(json.loads((folder / DESIGNS).read_text()))
    (folder / DESIGNS).write_bytes(damage.encoded(damage.dumped(content)))
    check_unchanged(path, layout)
    record_design(path, layout)


def _damaged_lines(damage: Damage, lines: list[Any]) -> bytes:
    """JSON lines of which some are damaged; seldom as bytes."""
    places = {damage.random.randrange(len(lines)) for _ in range(damage.random.choice((1, 1, 3)))}
    texts = [
        damage.dumped(damage.tree(line)).replace("\n", "") if place in places else json.dumps(line)
        for place, line in enumerate(lines)
    ]
    if damage.maybe(0.1):
        texts.append(damage.random.choice(texts))
    return damage.encoded("\n".join(texts) + "\n")


def _use_rows(rows: list[Any], folder: Path) -> None:
    layout_file = folder / "toy.yaml"
    layout_file.write_text(TOY_LAYOUT)
    layout = read_layout(layout_file)
    comparison = Comparison(layout, rows)
    for table in layout.tables:
        for built in build(comparison, table):
            to_markdown(built)


def rows(damage: Damage, folder: Path) -> None:
    (folder / "rows.jsonl").write_bytes(_damaged_lines(damage, [as_json(row) for row in _rows()]))
    read = read_rows(folder)
    to_frame(read)
    to_published(read)
    _use_rows(read, folder)


def published_rows(damage: Damage, folder: Path) -> None:
    lines = [json.loads(line) for line in to_published(_rows()).splitlines()]
    (folder / "rows.jsonl").write_bytes(_damaged_lines(damage, lines))
    _use_rows(read_published(folder / "rows.jsonl"), folder)


def columnar_rows(damage: Damage, folder: Path) -> None:
    """A Parquet file of another program, with damaged values, or bytes of ours that are damaged."""
    path = folder / "rows.parquet"
    write_columns(path, to_table(_rows()))
    if damage.maybe(0.5):
        path.write_bytes(damage.bytes(path.read_bytes()))
    else:
        plain = [as_json(row) for row in _rows()]
        plain = [damage.tree(row) if damage.maybe(0.2) else row for row in plain]
        texts = [
            {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}
            for row in plain
            if isinstance(row, dict)
        ]
        try:
            pq.write_table(pa.Table.from_pylist(texts), path)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return  # values that no column has together
        if damage.maybe(0.3):
            path.write_bytes(damage.bytes(path.read_bytes()))
    _use_rows(read_rows(path), folder)
    read_published(path)


def submission(damage: Damage, folder: Path) -> None:
    cell = Cell(folder / "samples" / "cell")
    edit = Edit("style", "a")
    row = as_json(
        made_row(
            suite="tgve", reference="bear", strata={"source": "DAVIS_480p"}, sample_id="a", edit_caption="a"
        )
    )
    line = damage.dumped(damage.tree(row)).replace("\n", "")
    path = cell.sample_path(SampleRequest(edit, 0, "a"), ".npz")
    path.parent.mkdir(parents=True)
    about = {"caption": "a", "adapter_steps": 1, "seconds": 1.0, "peak_memory": 1}
    np.savez(path, frames=np.zeros((2, 8, 8, 3), np.uint8), about=np.array(json.dumps(about)))
    (cell.folder / "rows.jsonl").write_bytes(damage.encoded(line + "\n"))
    select = {damage.text("tau"): damage.text("700")} if damage.maybe(0.2) else {}
    write_submission(folder / "samples", folder / "new", select)


# names


def names(damage: Damage, folder: Path) -> None:
    """Names out of data never lead out of a folder, and two of them never become one."""
    texts = [damage.text("bear") + suffix for suffix in ("", damage.text())]
    results = [file_name(text) for text in texts]
    for text, name in zip(texts, results, strict=True):
        if not re.fullmatch(r"[A-Za-z0-9._+-]+", name) or not name.strip(".") or len(name) > MOST_CHARACTERS:
            raise AssertionError(f"{text!r:.80} gives the file {name!r}")
        cell = Cell(folder / "cell")
        path = cell.sample_path(SampleRequest(Edit(text, "a"), 0, text), ".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        Clip(folder / "a", text, [text]).names()
        with suppress(ValueError):
            Clip(text, "a", ["b"]).names()
    if (texts[0] == texts[1]) != (results[0] == results[1]):
        raise AssertionError(f"two texts give one file {results[0]!r}: {texts!r:.200}")
    write_png(folder / f"{results[0]}.png", np.zeros((8, 8, 3), np.uint8))
    shutil.rmtree(folder / "cell", ignore_errors=True)
    assert dump_line({"name": texts[0]})


KINDS: dict[str, tuple[Callable[[Damage, Path], None], int]] = {
    "captions_csv": (captions_csv, 600),
    "captions_json": (captions_json, 600),
    "captions_yaml": (captions_yaml, 600),
    "tgve": (tgve, 500),
    "davis": (davis, 500),
    "videos_csv": (videos_csv, 500),
    "experiment": (experiment, 600),
    "designs": (designs, 100),
    "rows": (rows, 600),
    "published_rows": (published_rows, 500),
    "columnar_rows": (columnar_rows, 400),
    "submission": (submission, 300),
    "names": (names, 300),
}
"""{kind: (a case of it, how many of the whole run's cases)}."""
