"""`python run.py predict`: when each factor is set, from the VAE and the schedule, before a model is run."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_object
from rich.console import Console

from motionexp.backbones.latent_space import LatentSpace
from motionexp.backbones.precision import resolve_device
from motionexp.config.schema import JobConfig
from motionexp.data.base import References
from motionexp.data.checks import folded
from motionexp.data.select import check_source, make_reader, select_references
from motionexp.data.shapes.energies import PAIRS, pairs
from motionexp.data.shapes.render import render
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.progress import progress_bar
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.errors import InputError
from motionexp.files import file_name, plain_name, user_path, write_whole
from motionexp.jobs import provenance
from motionexp.jobs.cell import Cell
from motionexp.jobs.machine import clear_disk_errors, clear_memory_errors
from motionexp.jobs.probe_rows import EVERY, heard_log_snr
from motionexp.probes.analysis.prediction import (
    CONTRAST,
    ENERGY,
    FACTORS,
    FEWEST,
    LOG_SNR,
    METHOD,
    motion_is_first,
    predict,
    read_energies,
    read_offsets,
    read_schedules,
)
from motionexp.probes.analysis.prediction_tables import WITHOUT_TRUTH, prediction_table
from motionexp.probes.clip_energies import clip_energies
from motionexp.results.formats import Table, to_csv, to_markdown
from motionexp.results.intervals import Interval
from motionexp.results.rows import Row
from motionexp.results.terminal import print_table

METRIC_VERSION = 1
WORLD = "shapes"


@dataclass(frozen=True)
class Measured:
    """One energy: its factor and the names of its videos; of a pair of the bundled world, its number."""

    factor: str
    first: str
    second: str
    energy: float


def predict_job(cfg: JobConfig) -> Table:
    """Measure the energies of a model's latents, and print and store when each factor should be set.

    The model's denoiser and text encoder are not read. Energies are stored; a second call reads them.

    Args:
        cfg: checked settings; `references` counts pairs of the bundled world, or names clips.

    Raises:
        InputError: before weights: fewer than `FEWEST` pairs or clips, one caption for all, or a model
            without a VAE or without statistics of its latents.
    """
    advice = "try device=cpu, fewer frames= or references="
    with clear_disk_errors(cfg.output), clear_memory_errors(advice):
        # 1. What is known before weights.
        reader = make_reader(cfg.data)
        videos = _world_pairs(cfg) if reader.suite == WORLD else _clip_names(cfg, reader)
        check_source(replace(cfg, references=None))
        backbone = get_object(cfg.model._target_.rpartition(".")[0])
        space = LatentSpace(backbone, cfg.model.path, cfg.model.revision, cfg.model.name)
        space.check_size(cfg.frames, cfg.model.height, cfg.model.width)
        # 2. Rows, measured once.
        rows = _rows(cfg, reader, videos, space)
        # 3. The prediction, from models that are not this one.
        offsets = read_offsets().without(cfg.model.name)
        energies, log_snr = read_energies(rows)[cfg.model.name], read_schedules(rows)[cfg.model.name]
        predictions = predict(energies, log_snr, offsets)
        without_truth = [] if reader.suite == WORLD else [WITHOUT_TRUTH]
        unit = "pairs" if reader.suite == WORLD else "clips"
        title = f"When each factor is set: {cfg.model.name}, predicted"
        table = prediction_table(title, predictions, offsets, unit, without_truth)
        _show(cfg, table, predictions[-1].t if motion_is_first(predictions) else None)
    return table


def _world_pairs(cfg: JobConfig) -> int:
    """The number of pairs of scenes. Raises InputError for names, and for too few."""
    count = PAIRS if cfg.references is None else cfg.references
    if not isinstance(count, int):
        raise InputError(
            "references: in the bundled world a number of pairs; scenes are drawn for each factor"
        )
    _check_enough(count, "pairs")
    return count


def _clip_names(cfg: JobConfig, reader: References) -> list[str]:
    """The names of the clips; all unless `references` says otherwise."""
    names = reader.names()
    names = names if cfg.references is None else select_references(cfg.references, names)
    _check_enough(len(names), "clips")
    if len({folded(reader.describe(name).caption) for name in names}) == 1:
        raise InputError("all clips have one caption; pairs of clips need captions that differ")
    return names


def _check_enough(count: int, unit: str) -> None:
    if count < FEWEST:
        raise InputError(
            f"references={count}: {count} {unit}; an interval needs {FEWEST}: several clips go into a folder"
            " with a captions.csv (data=folder data.path=DIR)"
        )


def _rows(cfg: JobConfig, reader: References, videos: int | list[str], space: LatentSpace) -> list[Row]:
    """The rows of energies and of the schedule, stored under an id of all that they depend on."""
    size = cfg.frames, cfg.model.height, cfg.model.width
    data = {key: value for key, value in cfg.data.items() if key != "_target_"}
    about = [METRIC_VERSION, space.weights_hash, size, str(videos), data, cfg.probe_steps]
    key = hashlib.sha256(json.dumps(about, default=str, sort_keys=True).encode()).hexdigest()[:12]
    folder = user_path(cfg.output) / file_name(reader.suite) / file_name(cfg.model.name)
    cell, console = Cell(folder / f"prediction-{key}"), Console()
    with cell.locked(lambda: console.print("another process measures these energies: waiting for it")):
        # Clips may have been replaced under their names: theirs are measured again.
        if isinstance(videos, list) or not cell.rows():
            device = resolve_device(cfg.device)
            space.load(device)
            measured = (
                _world_energies(cfg, videos, space)
                if isinstance(videos, int)
                else _energies_of_clips(cfg, reader, videos, space)
            )
            fields = {**_fields(cfg, reader.suite, space), **provenance.origin(device)}
            rows = [*_energy_rows(measured, key, fields), *_schedule_rows(cfg, space.schedule, key, fields)]
            (cell.folder / "rows.jsonl").unlink(missing_ok=True)
            cell.add_rows(rows)
        return cell.rows()


def _world_energies(cfg: JobConfig, count: int, space: LatentSpace) -> Iterator[Measured]:
    """Energies of pairs of motion-dominant scenes that differ in one factor alone."""
    frames, chroma = cfg.frames, float(cfg.data.get("chroma", 1.0))

    with progress_bar(2 * count * len(FACTORS), "energies", "video") as bar:
        for factor in FACTORS:
            for number, scenes in enumerate(pairs(CONTRAST, factor, count, chroma)):
                latents = []
                for scene in scenes:
                    # 17 frames begin with the 16 in which the motion runs its course.
                    latents.append(space.encode(render(scene, frames, period=frames - frames % 2)))
                    bar.update()
                energy = float(np.square(latents[0].astype(np.float64) - latents[1]).sum())
                yield Measured(factor, f"{number:03d}", "", energy)


def _energies_of_clips(
    cfg: JobConfig, reader: References, names: Sequence[str], space: LatentSpace
) -> Iterator[Measured]:
    """Energies of pairs of clips, see `clip_energies`."""
    latents = []
    with progress_bar(len(names), "energies", "video") as bar:
        for name in names:
            clip = reader.read(name, cfg.frames, cfg.model.height, cfg.model.width)
            latents.append(space.encode(clip.frames))
            bar.update()
    captions = [folded(reader.describe(name).caption) for name in names]
    for (first, second), energies in clip_energies(latents, captions):
        for factor, energy in energies.items():
            yield Measured(factor, names[first], names[second], energy)


def _fields(cfg: JobConfig, suite: str, space: LatentSpace) -> dict[str, Any]:
    """The fields that all rows of a prediction share."""
    return {
        "metric_version": METRIC_VERSION,
        "suite": suite,
        "model": cfg.model.name,
        "method": METHOD,
        "tau": 1000.0,
        "settings": {"model": asdict(cfg.model), "frames": cfg.frames},
        "precision": "fp32",
        "weights_hash": space.weights_hash,
    }


def _energy_rows(measured: Iterator[Measured], key: str, fields: Mapping[str, Any]) -> Iterator[Row]:
    for entry in measured:
        if entry.energy <= 0:
            raise InputError(
                f"{entry.first} and {entry.second or 'its pair'} do not differ in {entry.factor}"
            )
        strata = {"factor": entry.factor} | ({"second": entry.second} if entry.second else {})
        name = f"{key}-{entry.factor}-{entry.first}-{entry.second}"
        yield Row(
            metric=ENERGY, value=entry.energy, score_id=name, reference=entry.first, strata=strata, steps=0,
            **fields,
        )  # fmt: skip


def _schedule_rows(cfg: JobConfig, schedule: Schedule, key: str, fields: Mapping[str, Any]) -> Iterator[Row]:
    """The log-SNR that a network hears at t = 0, 10, ... 1000, where it is finite; see `heard_log_snr`."""
    log_snr = heard_log_snr(schedule, cfg.probe_steps)
    for t in range(0, TIMESTEPS + 1, EVERY):
        if np.isfinite(log_snr[t]):
            value, strata = float(log_snr[t]), {"t": str(t)}
            yield Row(
                metric=LOG_SNR, value=value, score_id=f"{key}-{t}", reference="schedule", strata=strata,
                steps=cfg.probe_steps, **fields,
            )  # fmt: skip


def _show(cfg: JobConfig, table: Table, tau: Interval | None) -> None:
    """Print the table and the tau that follows; store the table as Markdown and CSV."""
    console, output = Console(), user_path(cfg.output)
    about = json.dumps([asdict(cfg.model), cfg.data, str(cfg.references), cfg.frames], default=str)
    digest = hashlib.sha256(about.encode()).hexdigest()[:6]
    file = output / "tables" / f"predict-{plain_name(cfg.model.name)[:60]}-{digest}"
    file.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".md", to_markdown(table)), (".csv", to_csv([table]))):
        write_whole(Path(f"{file}{suffix}"), text.encode(errors="backslashreplace"))
    print_table(console, table)
    shown = f"{tau.mean:.0f} [{tau.low:.0f}, {tau.high:.0f}]" if tau else "none"
    print(f"τ for the motion without the appearance: {shown}")
    print(f"table: {file}.md and .csv")
