"""`python run.py report`: a folder of pages about all that an output folder, or a sweep, holds."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from motionexp.config.commands import ReportConfig, command_settings
from motionexp.config.ranks import rank_of
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError
from motionexp.files import user_path
from motionexp.jobs.sweep_folder import SweepFolder, in_task
from motionexp.jobs.sweep_plan import PLAN
from motionexp.results.formats import amount

FOLDER, COMPARED = "report", "report-compared"
"""Names of a report's folder unless another is named: below the results, or below the first of two."""


def report(words: Sequence[str]) -> None:
    """`python run.py report [output=FOLDER] [compare=A,B] [folder=NEW]`; other words select by rows.

    Raises:
        InputError: there is nothing to show, or the folder has other files.
    """
    cfg, select = command_settings("report", ReportConfig, words, selects=True)
    if cfg.compare is None:
        paths = [user_path(cfg.output or "outputs")]
    elif cfg.output is not None:
        raise InputError(f"output={cfg.output}: compare= names both folders; leave output= out")
    else:
        paths = _compared(cfg.compare)
    folder = user_path(cfg.folder or paths[0] / (FOLDER if cfg.compare is None else COMPARED))
    write_report(paths, folder, select)


def _compared(words: str) -> list[Path]:
    """The two folders of `compare=A,B`. Raises InputError for other than two."""
    paths = words.split(",")
    if len(paths) != 2 or "" in paths:
        raise InputError(f"compare={words}: two output folders, or folders of sweeps, with a comma between")
    return [user_path(path) for path in paths]


def report_jobs(jobs: Sequence[JobConfig]) -> None:
    """Write the report of jobs that have report=true: of their sweep, or of their output folder.

    A process that works for a sweep, or for rank 0, writes none.
    """
    if in_task() or any((rank := rank_of(cfg.trainer)) is not None and rank.number > 0 for cfg in jobs):
        return
    jobs = [cfg for cfg in jobs if cfg.report and not cfg.dry_run]
    for output in dict.fromkeys(cfg.output for cfg in jobs):
        sweep = SweepFolder.of([cfg for cfg in jobs if cfg.output == output]).path
        path = sweep if (sweep / PLAN).exists() else user_path(output)
        try:
            write_report([path], path / FOLDER, {})
        except InputError as error:
            # The jobs' results, or their failures, count; the report is written by a command of its own too.
            print(f"no report: {error}", file=sys.stderr)


def write_report(paths: Sequence[Path], folder: Path, select: Mapping[str, str]) -> None:
    """Write the report of one folder of results, or of two, and print the path of its first page.

    Raises:
        InputError: as `report`.
    """
    # Here: OpenCV, PyAV and Jinja take half a second, and every command imports this module.
    from motionexp.jobs.pages.report.content import Source, content_of
    from motionexp.jobs.pages.report.media import write_media
    from motionexp.jobs.pages.report.pages import check_folder, write_pages

    check_folder(folder)
    names = "AB" if len(paths) > 1 else [""]
    content = content_of([Source(path, name) for path, name in zip(paths, names, strict=True)], select)
    write_media(folder, content)
    write_pages(folder, content)
    shown = amount(len(content.samples), "sample")
    if content.probes.units:
        shown += f", {amount(len(content.probes.units), 'heat map')} of probes"
    print(f"report: {folder / 'index.html'} ({shown})")
