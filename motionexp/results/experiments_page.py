"""The page of all experiments, experiments/README.md (`make tables` writes its sections).

The introduction, which is written in the page itself and stays, then one section for each experiments/*.yaml
file: its question, its answer and verdict, its figures, how it was decided, and links to its tables. The
sections depend on these files, and on which tables and figures there are.
"""

import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results.layout import Layout
from motionexp.results.layout_file import read_layout
from motionexp.results.published import print_files

PAGE = Path("experiments/README.md")
WIDTH = 118
NOT_RUN = "Not run yet."
NO_BREAK = "\N{NO-BREAK SPACE}"

# The reader's order: tuning, its settings, other methods, probes, instruments, speed. A file that is not
# named comes last.
ORDER = (
    *("tau-again", "tau", "tau_selection", "models", "contrast", "edit-kinds", "comparison"),
    *(
        "window",
        "soft-window",
        "steps",
        "fewer-steps",
        "full_rank",
        "references",
        "projections",
        "rank",
        "length",
    ),
    *(
        "gate",
        "any-lora",
        "tuned-baseline-search",
        "tuned-baseline-search-unet3d",
        "tuned-baseline",
        "rank-over-t",
        "flow-matching",
    ),
    *("method-search", "method-search-guidance", "windowed-methods", "vmc", "ditflow"),
    *("probe-tampering", "probe-motion", "probe-guidance", "shift", "linear-probe", "inversion", "predict"),
    *("metric-trust", "bench", "bench-full-size", "demo"),
)
FIGURES = Path("results/shapes/figures")
OF_PROBES = {
    "probe-tampering": "shares",
    "probe-motion": "*-motion-tampering-pairs",
    "probe-guidance": "*-partial-guidance-pairs",
    "predict": "prediction",
}
"""Figures that `make figures` draws of an experiment whose file describes none."""
PARTS = {"Decided by": "decision", "Chosen before": "choice", "References": "cut", "Cost": "cost"}


def page(root: Path) -> str:
    """The page's text: the introduction of the page, then the experiments below the repository's root.

    Raises:
        InputError: a file cannot be read, or its head does not say when it was last run.
    """
    introduction = (root / PAGE).read_text(encoding="utf-8").partition("\n## ")[0].strip()
    layouts = {path: read_layout(path) for path in experiment_paths(root)}
    sections = [section(path, layout, root) for path, layout in layouts.items()]
    return "\n\n".join([introduction, answers(layouts), *sections]) + "\n"


def answers(layouts: Mapping[Path, Layout]) -> str:
    """The table of all experiments: a line a question, its answer first."""
    lines = ["## Answers", "", "| answer | question | experiment |", "|---|---|---|"]
    for path, layout in layouts.items():
        answer, question = (" ".join(text.split()) for text in (layout.answer or NOT_RUN, layout.question))
        lines.append(f"| {answer} | {question} | [{path.stem}](#{path.stem}) |")
    return "\n".join(lines)


def experiment_paths(root: Path) -> list[Path]:
    """The files of all experiments below `root`: in `ORDER`, then those that it does not name, by name."""
    places = {name: place for place, name in enumerate(ORDER)}
    return sorted(
        (root / PAGE).parent.glob("*.yaml"), key=lambda path: (places.get(path.stem, len(ORDER)), path.stem)
    )


def section(path: Path, layout: Layout, root: Path) -> str:
    """One experiment's part of the page."""
    links = [
        f"[{link.removeprefix('results/')}](../{link})" for link in linked(layout) if (root / link).exists()
    ]
    # Texts of YAML files have line breaks of their own.
    labelled = {label: " ".join(getattr(layout, name).split()) for label, name in PARTS.items()}
    closing = [f"[{path.name}]({path.name})", f"Last run: {last_run(path)}"]
    closing += [f"Tables: {', '.join(links)}"] if links else []
    rules = [f"Differences within {layout.margin:g} count as equal"] if layout.margin else []
    rules += [f"Fewer than {layout.n} references decide nothing"] if layout.n else []
    pictures = [f"![{figure.stem}](../{figure})" for figure in drawn(path, layout, root)]
    closing += (
        [f"Further figures: {', '.join(picture[1:] for picture in pictures[1:])}"] if pictures[1:] else []
    )
    answer = " ".join(layout.answer.split())
    labelled["Decided by"] = ". ".join([labelled["Decided by"].rstrip("."), *rules]).removeprefix(". ")
    parts = [
        f"## {path.stem}",
        f"**{' '.join(layout.question.split())}**",
        *([answer] if not layout.verdict.startswith(answer) else []),
        *layout.verdict.strip().split("\n"),
        *pictures[:1],
        *(f"*{label}.* {text.rstrip('.')}." for label, text in labelled.items() if text),
        f"{'. '.join(closing)}.",
    ]
    return "\n\n".join(map(filled, parts))


def linked(layout: Layout) -> list[str]:
    """The result pages of an experiment, relative to the root: its tables, and what other commands write."""
    return [*(f"{table.file}.md" for table in layout.tables if layout.rows), *layout.pages]


def drawn(path: Path, layout: Layout, root: Path) -> list[Path]:
    """The figures of an experiment that there are, relative to the root."""
    names = [f"{figure.file}.png" for figure in layout.figures]
    described = [Path(name) for name in names if (root / name).exists()]
    probed = (root / FIGURES).glob(f"{OF_PROBES[path.stem]}.png") if path.stem in OF_PROBES else ()
    return [*described, *sorted(figure.relative_to(root) for figure in probed)]


def last_run(path: Path) -> str:
    """When an experiment was last run, as the comments at the head of its file say."""
    match = re.search(r"^# last run: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    if not match:
        raise InputError(f"{path}: its head does not say when it was last run; add `# last run: 2026-11-22`")
    return match[1]


def filled(text: str) -> str:
    """The text in lines of the page's width; no line breaks within brackets."""
    # An interval in brackets stays on one line: readers and tests search for it as it is.
    unbroken = re.sub(r"\[[^]]*\]", lambda match: match[0].replace(" ", NO_BREAK), text)
    return textwrap.fill(unbroken, WIDTH, break_on_hyphens=False, break_long_words=False).replace(
        NO_BREAK, " "
    )


def write_page(arguments: Sequence[str], path: Path, text: Callable[[Path], str]) -> int:
    """Writes a page of the repository in the named folder, or in this one; returns the exit code."""
    root = Path(*arguments[:1])

    def written() -> Iterator[Path]:
        write_whole(root / path, text(root).encode())
        yield root / path

    return print_files(written())


def main(arguments: Sequence[str]) -> int:
    """Writes the page of all experiments; returns the exit code."""
    return write_page(arguments, PAGE, page)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
