"""A probe's job: its units of work one after the other, then their rows and figures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

from rich.console import Console

from motionexp.config.schema import JobConfig
from motionexp.data.base import Reference
from motionexp.diffusion.progress import progress_bar
from motionexp.jobs.failures import Failures
from motionexp.jobs.job import Job
from motionexp.jobs.machine import clear_disk_errors, clear_memory_errors, smaller
from motionexp.jobs.measurement import decoding_seconds, forward_seconds
from motionexp.jobs.plan import JobPlan
from motionexp.jobs.probe_inversion import InversionProbe
from motionexp.jobs.probe_linear import LinearProbe
from motionexp.jobs.probe_tree import TreeProbe
from motionexp.jobs.probe_units import Probe, Unit
from motionexp.jobs.progress_file import ProgressFile
from motionexp.jobs.sweep_folder import sweep_of_process
from motionexp.results.compaction import compact
from motionexp.results.formats import amount, duration
from motionexp.results.rows import Row
from motionexp.results.runs import write_index

KINDS: dict[str, type[Probe]] = {"inversion": InversionProbe, "linear_probe": LinearProbe}


def probe_of(plan: JobPlan) -> Probe:
    """The probe that a job's plan names."""
    assert plan.probe is not None, "probe="
    return KINDS.get(plan.probe.kind, TreeProbe)(plan)


def probe(cfg: JobConfig) -> list[Row]:
    """Run a probe's units of work, and draw its figures.

    Args:
        cfg: checked settings with `probe`.

    Returns:
        The rows of all units, stored ones included.

    Raises:
        InputError: the input is wrong, or the output folder cannot be written; finished results stay stored.
        MemoryError: main memory or the GPU's is too small.
        CellsFailed: some of several units failed; the others ended well.
    """
    console = Console()
    with clear_disk_errors(cfg.output), clear_memory_errors(smaller(cfg)):
        # 1. Say the cost, and measure what belongs to the model and not to a reference.
        job = Job(cfg, console)
        probe = probe_of(job.plan)
        if sweep := sweep_of_process():
            sweep.report(cfg, [(unit.name, cfg.seed, unit.cell.folder) for unit in probe.units])
        missing = probe.missing
        for line in cost_in_words(probe, missing):
            console.print(line, markup=False, highlight=False)
        model_rows = probe.model_rows(job)
        # 2. Encode. Each encoder is freed before the network is loaded.
        if probe.scores:
            job.check_scoring()
        encode(job, missing)
        # 3. Run. The rows and figures of a probe are those of all its units.
        if missing:
            run_units(job, missing)
        # 4. Read or score, and show.
        rows = probe.rows(job)
        probe.show(job, rows, model_rows)
        for folder in dict.fromkeys(unit.cell.folder.parent for unit in probe.units):
            write_index(folder)
            compact(folder)
    return rows


def cost_in_words(probe: Probe, missing: Sequence[Unit]) -> list[str]:
    """What is left to do of a probe, in lines."""
    evaluations = sum(unit.work.evaluations for unit in missing)
    encoded = sum(unit.work.encoded for unit in missing)
    left = (
        f"probe={probe.plan.kind}: {amount(len(probe.units), 'unit')} of work, {len(missing)} left:"
        f" {amount(encoded, 'video')} to encode, {amount(evaluations, 'network evaluation')}"
    )
    return [left, *filter(None, [probe.cost])]


def _counted(videos: Iterable[Reference], bar: Any) -> Iterator[Reference]:
    for video in videos:
        yield video
        bar.update()


def encode(job: Job, units: Sequence[Unit]) -> None:
    """Encode all captions and videos of units with a progress bar, then free the encoders."""
    captions = list(dict.fromkeys(caption for unit in units for caption in unit.captions))
    videos = chain.from_iterable(unit.references() for unit in units)
    count = sum(unit.work.encoded for unit in units)
    with progress_bar(count, "encode", "video") as bar:
        job.cache.fill(_counted(videos, bar), captions)


def _noted(bar: Any, progress: ProgressFile, before: int, steps: int) -> Callable[[int], None]:
    """Counts steps of a unit on the bar of all units, where it begins at `before`, and in its own file."""

    def count(done: int) -> None:
        bar.update(done)
        progress.step("probe", int(bar.n) - before, steps)

    return count


def run_units(job: Job, units: Sequence[Unit]) -> None:
    """Run units one by one, with one progress bar and the time left of all.

    Raises:
        CellsFailed: some of several units failed; the others ended well.
    """
    reference = next(iter(units[0].references()))
    conditioning = job.cache.of_reference(reference, units[0].captions[0])
    seconds = forward_seconds(job.plan, conditioning, rows=1) * sum(unit.work.evaluations for unit in units)
    if videos := sum(unit.work.videos for unit in units):
        seconds += decoding_seconds(job.plan) * videos
    job.console.print(f"about {duration(seconds)}, files and scores not counted", highlight=False)
    steps, failures = [unit.work.steps for unit in units], Failures(len(units))
    with progress_bar(sum(steps), "probe", "step") as bar:
        for number, unit in enumerate(units, start=1):
            bar.desc = f"{unit.name} ({number} of {len(units)})"
            about = {"unit": unit.name, "probe": job.plan.row_settings["probe"]}
            failing, working = failures.catching(unit.cell.folder, unit.name), ProgressFile(unit.cell.folder)
            with failing, job.holding(unit.cell, about), closing(working) as progress:
                # Read under the lock: another process may have finished the unit while this one waited.
                if not unit.is_finished:
                    unit.run(job, _noted(bar, progress, sum(steps[: number - 1]), steps[number - 1]))
            # Steps whose results were stored already pass at once.
            bar.update(sum(steps[:number]) - bar.n)
            if unit.cell.folder in failures.by_cell:
                job.after_failure()
    failures.check()
