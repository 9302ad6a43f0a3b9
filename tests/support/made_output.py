"""A folder of results as jobs leave it: cells of two references with videos, scores by frame and rows."""

from itertools import product
from pathlib import Path

import numpy as np
import yaml

from motionexp.data.base import Edit
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.data.videos import write_png
from motionexp.jobs.cell import INVERTED_FILE, Cell, Sample, SampleRequest
from motionexp.results.rows import Row
from tests.support.made_rows import made_row

REFERENCES = ("01-wander-cyan-square", "02-wander-blue-circle")
KINDS = ("style", "object")
TAUS = (1000.0, 500.0, 700.0)
METRICS = ("velocity_similarity", "nuisance_similarity", "nuisance_chance", "text_alignment")
FRAMES, SIZE, FPS = 16, 64, 8.0


def moving_square(start: int) -> np.ndarray:
    """(16, 64, 64, 3) uint8: a textured square that moves to the right."""
    texture = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    frames = np.full((FRAMES, SIZE, SIZE, 3), 90, np.uint8)
    for number, frame in enumerate(frames):
        frame[20:40, start + 2 * number : start + 2 * number + 20] = texture
    return frames


def settings_of(tau: float) -> dict:
    """The settings that a cell stores, as far as a report reads them."""
    data = {"_target_": "motionexp.data.shapes.splits.ShapesReferences", "split": "benchmark"}
    data |= {"appearances": 1, "chroma": 1.0, "unnamed": ""}
    model = {"name": "tiny_latte", "height": SIZE, "width": SIZE}
    return {"model": model, "data": data, "frames": FRAMES, "tau": tau, "video": None, "edits": None}


def write_output(folder: Path, caption="a {kind} is moving", references=REFERENCES, taus=TAUS) -> list[Row]:
    """Write cells of the base model and of two windows below an output folder; returns their rows."""
    rows = []
    for number, (name, tau) in enumerate(product(references, taus)):
        cell = Cell(folder / "shapes" / "tiny_latte" / f"cell{number:08d}")
        cell.media.mkdir(parents=True)
        (cell.folder / "config.yaml").write_text(yaml.safe_dump(settings_of(tau)))
        (cell.folder / "status.json").write_text(f'{{"state": "done", "reference": "{name}"}}')
        reference = ShapesReferences().read(name, FRAMES, SIZE, SIZE)
        for place, kind in enumerate(KINDS):
            edit = Edit(kind, caption.format(kind=kind))
            request = SampleRequest(edit, 0, f"{number:06x}{place:06x}")
            cell.save_sample(request, Sample(edit, 0, moving_square(number), 8, 1.0, 1), FPS)
            cell.add_series(request, {"text_alignment": np.linspace(30, 30 + number, FRAMES)})
            path = cell.sample_path(request, ".mp4").relative_to(folder)
            rows += [_row(metric, reference, tau, request, str(path), number) for metric in METRICS]
            cell.add_rows(rows[-len(METRICS) :])
    return rows


def _row(metric, reference, tau, request, path, number) -> Row:
    return made_row(
        metric=metric,
        value={"nuisance_chance": 0.1, "text_alignment": 30.0}.get(metric, number / 10 + len(metric) / 100),
        higher_is_better={
            "velocity_similarity": True,
            "nuisance_similarity": False,
            "text_alignment": True,
        }.get(metric),
        score_id=f"{request.sample_id}{metric}",
        reference=reference.name,
        reference_hash=reference.content_hash,
        edit_kind=request.edit.kind,
        edit_caption=request.edit.caption,
        training_seed=None if tau == 1000 else 0,
        sample_file=path,
        sample_id=request.sample_id,
        method="base" if tau == 1000 else "lora",
        tau=tau,
        settings={
            "model": settings_of(tau)["model"] | {"frames": FRAMES},
            "tau": tau,
            "rank": 4,
            "frames": FRAMES,
        },
    )


def write_probe(folder: Path) -> list[Row]:
    """Write a unit of the tampering probe beside such cells: its control and two pairs; returns its rows."""
    cell = Cell(folder / "shapes" / "tiny_latte" / "unit00000000")
    cell.media.mkdir(parents=True)
    (cell.folder / "status.json").write_text(
        '{"state": "done", "unit": "01-wander-cyan-square, style", "probe": "tampering"}'
    )
    write_png(cell.folder / INVERTED_FILE, moving_square(0)[0])
    edit, rows = Edit("style", "a changed caption"), []
    for number, (start, end) in enumerate((("none", "none"), ("1000", "0"), ("900", "800"))):
        request = SampleRequest(edit, 0, f"pair{number:08d}")
        cell.save_sample(request, Sample(edit, 0, moving_square(number), 0, 1.0, 1), FPS)
        about = {
            "reference": REFERENCES[0],
            "edit_caption": edit.caption,
            "method": "tampering",
            "tau": 1000.0,
        }
        about |= {"sample_id": request.sample_id, "tau_start": start, "tau_end": end}
        rows.append(made_row(value=30.0 + number, score_id=f"{request.sample_id}text", **about))
    cell.add_rows(rows)
    return rows


def write_failed(folder: Path) -> Path:
    """Write a cell that failed, with its log; returns its folder."""
    cell = folder / "shapes" / "tiny_latte" / "failed000000"
    cell.mkdir(parents=True)
    (cell / "status.json").write_text(
        '{"state": "failed", "reference": "a<b>", "error": "no memory <img src=x>"}'
    )
    (cell / "error.log").write_text("Traceback\n</pre><script>alert(1)</script>")
    return cell
