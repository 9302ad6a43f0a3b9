"""`python run.py report`: a folder of pages about all that an output folder, or a sweep, holds."""

from collections.abc import Sequence
from pathlib import Path

from motionexp.config.command_line import selection
from motionexp.errors import InputError
from motionexp.files import user_path
from motionexp.jobs.report.content import Source, content_of
from motionexp.jobs.report.media import write_media
from motionexp.jobs.report.pages import check_folder, write_pages

FOLDER, COMPARED = "report", "report-compared"
"""Names of a report's folder unless another is named: below the results, or below the first of two."""


def report(words: Sequence[str]) -> None:
    """`python run.py report [output=FOLDER] [compare=A,B] [folder=NEW]`; other words select by rows.

    Raises:
        InputError: there is nothing to show, or the folder has other files.
    """
    select = selection("report", words)
    compare, output = select.pop("compare", None), select.pop("output", None)
    if compare is None:
        sources = [Source(user_path(output or "outputs"))]
    elif output is not None:
        raise InputError(f"output={output}: compare= names both folders; leave output= out")
    else:
        sources = compared(compare)
    first = sources[0].path
    folder = user_path(select.pop("folder", first / (FOLDER if compare is None else COMPARED)))
    write_report(sources, folder, select)


def compared(words: str) -> list[Source]:
    """The two sources of `compare=A,B`. Raises InputError for other than two."""
    paths = [user_path(path) for path in words.split(",")]
    if len(paths) != 2 or "" in words.split(","):
        raise InputError(f"compare={words}: two output folders, or folders of sweeps, with a comma between")
    return [Source(path, name) for path, name in zip(paths, "AB", strict=True)]


def write_report(sources: Sequence[Source], folder: Path, select: dict[str, str]) -> None:
    """Write a report, and print the path of its first page. Raises InputError as `report`."""
    check_folder(folder)
    content = content_of(sources, select)
    write_media(folder, content)
    write_pages(folder, content)
    print(f"report: {folder / 'index.html'}")
