"""A dry run: the cells, trainable parameters, steps, time, disk and paths of a job that is not run."""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import constants
from hydra.utils import get_object
from rich.console import Console

from motionexp.config.schema import JobConfig, method_name
from motionexp.files import existing_part
from motionexp.hub import MOTION_ADAPTER, VARIANT, Configuration, configurations, fetch_command
from motionexp.jobs.evaluation import free_memory
from motionexp.jobs.inputs import gpu_problem, plan_job
from motionexp.jobs.machine import clear_memory_errors, smaller
from motionexp.jobs.measurement import StepSeconds, measure
from motionexp.jobs.memory_plan import Phase, memory_plan, rows_of
from motionexp.jobs.plan import JobPlan
from motionexp.jobs.window_notes import recipe_notes
from motionexp.results.formats import Grid, duration

BYTES_PER_TRAINED_NUMBER = 4
MOST_LISTED = 3  # files of a part, whose names and sizes are printed
MEDIA_OVER_RAW = 1.5  # the exact frames, compressed, with an mp4 and a contact sheet


class CellCost(NamedTuple):
    """A line of the dry run: what is left to do for one cell, in seconds and bytes."""

    columns: tuple[str, ...]
    folder: Path
    seconds: float
    disk: int


class JobCost(NamedTuple):
    """The table of a dry run, and notes under it; the columns of a line stand under the headings."""

    title: str
    headings: tuple[str, ...]
    lines: list[CellCost]
    notes: tuple[str, ...]


def plan(cfg: JobConfig) -> list[str]:
    """Print what `run`, or `probe`, would do. Writes nothing, and asks no hub.

    The memory is printed before any weight is loaded. The time is the number of steps times the time of one,
    which is measured now. It is unknown if the job does not fit into the free memory, or if the weights are
    not on this machine: the plan then goes by the model's configuration.

    Raises:
        InputError: as `run` before its first cell.
        MemoryError: one step took more memory than planned.

    Returns:
        What this machine lacks for the job, a line each; of a model that is here.
    """
    console, job = Console(), plan_job(cfg)
    trained = trainable_parameters(job)
    peak = max(node_bytes(job, phase) for phase in print_memory(console, job, job_phases(job, trained)))
    seconds = StepSeconds()
    # One process is measured: a network that takes several devices is not.
    if job.has_weights and peak <= free_memory(job.device) and not job.backbone_settings.sharded:
        with clear_memory_errors(smaller(cfg)):
            seconds = measure(job, rows_of(job))
    total = job_cost(job, seconds, trained)
    _print_cost(console, job, total)
    if math.isnan(free_memory(job.device)):
        console.print("device=cuda: planned for a GPU of another machine; this one has none")
    problems = memory_problems(cfg, job, peak)
    problems += disk_problems(cfg, job, sum(line.disk for line in total.lines))
    if job.has_weights:
        return problems
    # The job may be meant for another machine: what this one lacks is no error yet.
    for note in (*download_notes(job), *(f"this machine: {problem}" for problem in problems)):
        for line in note.splitlines():
            # A command that is to be copied stays in one piece.
            console.print(line, soft_wrap=line.startswith("  "), highlight=False, markup=False)
    return []


def node_bytes(job: JobPlan, phase: Phase) -> int:
    """Peak bytes of a phase: of the main memory that all ranks of a node share, or of one GPU."""
    return phase.total * (phase.ranks if job.device.type == "cpu" else 1)


def _print_cost(console: Console, job: JobPlan, total: JobCost) -> None:
    """Print what is left of each cell, the sum, and the folders of results."""
    console.print(f"{job.model.name}, {total.title}, {job.precision} on {job.device}", markup=False)
    if job.adapter_note:
        console.print(job.adapter_note, markup=False, highlight=False, soft_wrap=True)
    times = ["?" if math.isnan(line.seconds) else duration(line.seconds) for line in total.lines]
    texts = [
        (*line.columns, time, size_in_words(line.disk)) for line, time in zip(total.lines, times, strict=True)
    ]
    console.print(Grid((*total.headings, "time", "disk"), texts, "l").terminal())
    seconds, disk = sum(line.seconds for line in total.lines), sum(line.disk for line in total.lines)
    time = f"about {duration(seconds)}"
    if math.isnan(seconds):
        time = "time unknown until it is measured on this machine"
    for note in (*total.notes, f"{time}; results of {size_in_words(disk)}; scores not counted"):
        console.print(note, highlight=False)
    folders = [line.folder for line in total.lines]
    if not job.has_weights:
        # The name of a cell's folder has the hash of the weights.
        folders = list(dict.fromkeys(folder.parent for folder in folders))
    for folder in folders:
        console.print(f"output: {folder}", soft_wrap=True, highlight=False, markup=False)


def download_notes(job: JobPlan) -> list[str]:
    """What a plan by the configuration alone has to say: the download, and what is not known yet."""
    path, revision = job.model.path, job.model.revision
    stored, parts = configurations(path), job.backbone.parts
    size = size_in_words(count) if (count := _download_size(job)) else "size unknown"
    return [
        f"download: {size}, not on this machine yet{_by_part(stored)}:",
        f"  {fetch_command(path, revision, parts)}",
        *(f"configuration: {entry.source}" for entry in stored),
        "captions: not checked, for the tokenizer is not on this machine; planned at the greatest length,"
        f" {job.model.max_caption_tokens} tokens",
        "stored results: not looked up, for their names depend on the weights; planned as if there were none",
    ]


def _by_part(stored: Sequence[Configuration]) -> str:
    """The sizes of a download's parts, and of their files where they are known and few; or empty."""
    parts = []
    for entry in stored:
        for part, size in entry.bytes.items():
            listed = entry.files_of(part)
            count = entry.shards.get(part, len(listed))
            files = f" in {count} files" if count > 1 else ""
            if 0 < len(listed) <= MOST_LISTED:
                files += f": {', '.join(f'{name} {size_in_words(of)}' for name, of in listed.items())}"
            variant = f" in {VARIANT}" if part in entry.variants else ""
            parts.append(f"{part or MOTION_ADAPTER} {size_in_words(size)}{variant}{files}")
    return f" ({'; '.join(parts)})" if parts else ""


def memory_problems(cfg: JobConfig, job: JobPlan, peak: int) -> list[str]:
    """What this machine's memory and GPUs lack for the job, a line each."""
    problems = [problem] if (problem := gpu_problem(cfg, job.device)) else []
    if peak > (free := free_memory(job.device)):
        fit = f"{size_in_words(peak)} do not fit into the free memory, {size_in_words(int(free))}"
        problems.append(f"{fit}: {smaller(cfg)}")
    return problems


def disk_problems(cfg: JobConfig, job: JobPlan, disk: int) -> list[str]:
    """What this machine's disks lack for results of so many bytes, and for the download, a line each."""
    problems = []
    room = shutil.disk_usage(existing_part(job.output)).free
    if disk > room:
        problems.append(
            f"output={cfg.output}: {size_in_words(room)} of the disk are free, and about"
            f" {size_in_words(disk)} are to be written; free space or choose another output="
        )
    size = 0 if job.has_weights else _download_size(job)
    cache = Path(constants.HF_HUB_CACHE)
    room = shutil.disk_usage(existing_part(cache)).free
    if size > room:
        problems.append(
            f"{cache}: {size_in_words(room)} of the disk are free, and the download takes"
            f" {size_in_words(size)}; free space, or set HF_HUB_CACHE to a folder on another disk"
        )
    return problems


def _download_size(job: JobPlan) -> int:
    """Bytes of the weights on the hub, or 0 where they are not known."""
    return sum(sum(stored.bytes.values()) for stored in configurations(job.model.path))


def job_cost(job: JobPlan, seconds: StepSeconds, trained: int) -> JobCost:
    """What is left to do for each cell, or unit of a probe; `trained` is the number of trained parameters."""
    return _probe_cost(job, seconds) if job.probe else _tuning_cost(job, seconds, trained)


def _tuning_cost(job: JobPlan, measured: StepSeconds, trained: int) -> JobCost:
    sampler, lines = job.sampling.sampler, []
    inversion = job.steps_of_inversion
    cells = [(plan, job.title(plan), job.batch_steps, inversion) for plan in job.cells]
    base = job.base
    if base is not None:
        cells += [(plan, f"{plan.reference.name}, base model", base.batch_steps, 0) for plan in base.cells]
    for plan, reference, sampling_steps, inverted in cells:
        steps, missing = plan.steps_left, len(plan.missing)
        batches = sum(any(not plan.cell.has_sample(request) for request in batch) for batch in plan.batches)
        state = plan.cell.status()["state"] if job.has_weights else "unknown"
        name = plan.cell.folder.name if job.has_weights else "unknown"
        columns = (reference, name, state, str(steps), str(missing))
        parts = (
            (steps * job.training.accumulate, measured.training),
            (1 if steps else 0, measured.encoding),
            (math.ceil(batches / job.ranks[0]) * sampling_steps, measured.sampling),
            (math.ceil(missing / job.ranks[0]), measured.decoding),
            (inverted if missing else 0, measured.sampling / measured.rows),
        )
        # A time that is unknown does not matter where there is nothing to do.
        seconds = sum(count * of_one for count, of_one in parts if count)
        lines.append(
            CellCost(columns, plan.cell.folder, seconds, cell_disk(job, trained if steps else 0, missing))
        )
    on, warnings = job.adapter_steps.on, job.window_notes
    adapter = f"{trained:,} trainable parameters ({method_name(job.tuning)})"
    notes: tuple[str, ...] = (
        adapter if job.trains else "nothing is trained",
        str(job.adapter_steps),
        *warnings,
        *([f"sampling starts from inverted latents: {inversion} steps a reference"] if inversion else []),
    )
    if job.guidance is not None:
        cost, name = job.guidance, method_name(job.tuning)
        guided = f"guides {on} of {sampler.steps} sampling steps"
        acts = "sets the latents that the sampling starts from" if cost.at_start else guided
        notes = (
            f"nothing is trained: {name} {acts}",
            *warnings,
            f"guidance of a sample: at most {on * cost.forward:g} forward and {on * cost.backward:g} backward"
            f" evaluations of the network; of a reference: {cost.once:g} forward",
        )
    if sampler.stg_scale:
        blocks = ", ".join(map(str, sampler.stg_blocks))
        notes += (
            f"stg_scale={sampler.stg_scale:g}: {sampler.branches} evaluations of the network a step, of which"
            f" one is perturbed in block {blocks}",
        )
    headings = ("reference", "cell", "state", "training steps", "samples")
    notes += tuple(recipe_notes(job))
    return JobCost(f"τ = {job.window.low:g}", headings, lines, notes)


def _probe_cost(job: JobPlan, measured: StepSeconds) -> JobCost:
    from motionexp.jobs.probe_job import probe_of  # which imports lightning
    from motionexp.jobs.probe_units import Work

    probe, lines = probe_of(job), []
    for unit in probe.units:
        work = Work() if unit.is_finished else unit.work
        columns = (unit.name, "{} of {}".format(*unit.stored))
        counts = (f"{work.encoded:,}", f"{work.steps:,}", f"{work.evaluations:,}")
        parts = (
            (work.encoded, measured.encoding),
            (work.evaluations, measured.sampling / measured.rows),
            (work.videos, measured.decoding),
        )
        seconds = sum(count * of_one for count, of_one in parts if count)
        lines.append(CellCost((*columns, *counts), unit.cell.folder, seconds, cell_disk(job, 0, work.videos)))
    # Their cells are in the lines of the output: names are whole on 80 columns then.
    headings = (*probe.headings, "encode", "steps", "evaluations")
    notes = (
        f"columns: {probe.headings[1]} that are stored; videos to encode; steps; evaluations, which are"
        " passes of the network on one video (two in a guided step)",
        *filter(None, [probe.cost]),
        *recipe_notes(job),
    )
    return JobCost(f"probe={probe.plan.kind}", headings, lines, notes)


PLANNED: dict[str, list[Phase]] = {}


def job_phases(job: JobPlan, trained: int) -> list[Phase]:
    """The memory of a job; computed once for all jobs of a sweep that take the same."""
    # The window matters only where it changes which layers are trained.
    captions = [(reference.caption, reference.edits) for reference in job.references]
    key = repr(
        (
            *(job.backbone_settings, job.device, job.text_precision, job.size, job.trains, trained),
            *(
                dict(job.tuning),
                job.training.optimizer,
                job.training.batch_size,
                job.trained_together,
                rows_of(job),
                job.ranks,
            ),
            *(job.probe and job.probe.kind, captions if job.has_weights else ""),
        )
    )
    if key not in PLANNED:
        PLANNED[key] = memory_plan(job)
    return PLANNED[key]


def print_memory(console: Console, job: JobPlan, phases: list[Phase]) -> list[Phase]:
    """Print the memory of a job phase by phase, and its peak; return the phases."""
    texts = []
    for phase in phases:
        loaded = ", ".join(f"{part} {size_in_words(size)}" for part, size in phase.weights.items())
        computing, total = size_in_words(phase.computing), size_in_words(phase.total)
        name = phase.name if phase.ranks == 1 else f"{phase.name}, on each of {phase.ranks} ranks"
        texts.append([name, loaded, computing, total, phase.then])
    console.print(Grid(("memory", "loaded", "computing", "in all", "then freed"), texts, "l").terminal())
    peak = max(phases, key=lambda phase: phase.total)
    where = "main memory" if job.device.type == "cpu" else f"{job.device}"
    where += f", on each of {job.ranks[1]} ranks of a node," if job.ranks[1] > 1 else ""
    console.print(
        f"mode={job.mode}: at most {size_in_words(peak.total)} of {where} above what the imports take"
        f" ({peak.name}), scores not counted",
        highlight=False,
    )
    return phases


def trainable_parameters(job: JobPlan) -> int:
    """The number of parameters that a cell of the job trains; 0 if it trains none."""
    if not job.trains:
        return 0
    settings: dict[str, Any] = dict(job.tuning)
    method = get_object(settings.pop("_target_"))
    count: Callable[..., int] = method.trainable_parameters
    return count(job.backbone_settings.make(torch.device("meta")), job.window, **settings)


def cell_disk(job: JobPlan, trained: int, samples: int) -> int:
    """Bytes of an adapter of so many numbers, and of so many samples."""
    raw = math.prod(job.size) * 3
    return int(BYTES_PER_TRAINED_NUMBER * trained + MEDIA_OVER_RAW * raw * samples)


def size_in_words(count: int) -> str:
    """Bytes with a unit that fits; a GB is 10^9 bytes."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
