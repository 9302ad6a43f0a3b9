"""What a finished job of the page left: its videos and its adapter. No torch."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from motionexp.config.schema import JobConfig
from motionexp.data.base import Reference
from motionexp.data.clip import Clip
from motionexp.data.select import make_reader
from motionexp.data.videos import enlarged, write_mp4
from motionexp.errors import InputError
from motionexp.files import user_path
from motionexp.jobs.cell import ADAPTER_FILE, SampleRequest
from motionexp.jobs.finished import FinishedCell, read_record
from motionexp.jobs.references import read_references

MEDIA = ".cache/ui"
"""The folder of the references' videos and of the jobs' output, below that of the results."""


@dataclass(frozen=True)
class JobResult:
    """What a job made of its reference.

    Attributes:
        reference: its video, as the model saw it.
        samples: {caption: (video of the base model or None, video of the tuned model)}.
        adapter: the file of the adapter; None: the method trains nothing.
    """

    reference: Path
    samples: Mapping[str, tuple[Path | None, Path]]
    adapter: Path | None


def job_result(cfg: JobConfig) -> JobResult:
    """The results of a job that has ended well. Raises InputError where its record cannot be found."""
    references = read_references(cfg, make_reader(cfg.data))
    cells = read_record(cfg, references)
    if not cells:
        raise InputError(
            f"the job is done, and its record is not found: python run.py list runs output={cfg.output}"
        )
    cell = cells[0]
    of_base = {} if cell.base is None else _videos(cell.base)
    samples = {caption: (of_base.get(caption), path) for caption, path in _videos(cell).items()}
    files = [adapter.adapter / ADAPTER_FILE for adapter in cell.adapters]
    video = write_reference(references[0], cfg.output)
    return JobResult(video, samples, files[0] if files else None)


def _videos(cell: FinishedCell) -> dict[str, Path]:
    """{caption: the first sample's video}."""
    first: dict[str, SampleRequest] = {}
    for request in cell.requests:
        first.setdefault(request.edit.caption, request)
    return {caption: cell.cell.sample_path(request, ".mp4") for caption, request in first.items()}


def write_reference(reference: Reference, output: str) -> Path:
    """The video of a reference, large enough to look at; written where it is not yet."""
    digest = hashlib.sha256(reference.frames.tobytes()).hexdigest()[:16]
    path = user_path(output).absolute() / MEDIA / f"reference-{digest}.mp4"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, enlarged(reference.frames), reference.fps)
    return path


def preview(cfg: JobConfig, reference: str, video: Path | None) -> Path:
    """The video of a chosen reference, or of a clip, as the model would see it. Raises InputError."""
    # The captions of a clip may come later.
    reader = make_reader(cfg.data) if video is None else Clip(video, "clip", ["clip"])
    name = reference if video is None else reader.names()[0]
    return write_reference(reader.read(name, cfg.frames, cfg.model.height, cfg.model.width), cfg.output)
