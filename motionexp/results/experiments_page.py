"""The page of all experiments, experiments/README.md (`make tables` writes it).

A fixed introduction, then one section for each experiments/*.yaml file: its question, its verdict, how it was
decided, and links to its tables. The page depends on these files, and on which tables there are.
"""

import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results.layout import Layout
from motionexp.results.layout_file import read_layout

PAGE = Path("experiments/README.md")
WIDTH = 118
NO_BREAK = "\N{NO-BREAK SPACE}"

# The reader's order: tuning, its settings, probes, instruments, speed. A file that is not named comes last.
ORDER = (
    *("tau", "tau_selection", "models", "contrast", "edit-kinds", "comparison"),
    *("window", "soft-window", "steps", "full_rank", "references", "projections", "rank", "length"),
    *("probe-tampering", "probe-motion", "probe-guidance", "linear-probe", "inversion"),
    *("metric-trust", "bench", "bench-full-size", "demo"),
)
INTRODUCTION = """
# Experiments and their verdicts

Each file here asks one question.

    python run.py experiment=NAME                                            # a finished job is not run again
    python -m motionexp.results.publish experiments/NAME.yaml outputs/       # copies its rows into results/
    make tables figures                       # tables, figures and this page, from rows and these files

All numbers are measured on the bundled world, unless a table says *reported*. [README](../README.md#words)
explains the words. Read the numbers with these limits:

- There is one pretraining seed of each model. The training noise, the timesteps and the start of an adapter
  are the same random draws for every reference. No interval contains the error from either.
- Brackets are 95% bootstrap intervals over references. From five references up they cover the true mean of
  normal values in 94 to 95% of cases; of skewed values they cover less. Of five or fewer references the
  interval is their range. Four references or fewer decide nothing, and no claim is made on them.
- No interval is corrected for the number of comparisons. About one in twenty null differences appears bold.
- The learning rate and the steps were chosen with the window on. Tuning at all timesteps, the baseline, was
  not tuned.
- "Not detectable" and "undetermined" mean that the interval contains zero. They do not mean equality.

References were dropped to save time; table rows never were. All lines of a block have the same references,
edits, seeds, precision and weights, or the table is refused. All settings that a line does not select have
their default value. The paired differences to the default row follow under each block.

With `model=latte data=tgve data.path=DIR`, an experiment runs the jobs and settings of the papers on a real
model; `dry_run=true` lists these jobs with their cost. A word on the command line replaces that word of the
file. A job that no line of the tables would show is refused before it starts: copy the file to change it.
"""
PARTS = {
    "Decided by": "decides",
    "Chosen before": "choice",
    "References": "cut",
    "Cost": "cost",
}


def page(root: Path) -> str:
    """The page's text, from the experiments below the repository's root.

    Raises:
        InputError: a file cannot be read, or its head does not say when it was last run.
    """
    paths = sorted((root / "experiments").glob("*.yaml"), key=lambda path: (_place(path.stem), path.stem))
    return "\n\n".join([INTRODUCTION.strip(), *(section(path, root) for path in paths)]) + "\n"


def section(path: Path, root: Path) -> str:
    """One experiment's part of the page."""
    layout = read_layout(path)
    links = [
        f"[{link.removeprefix('results/')}](../{link})" for link in linked(layout) if (root / link).exists()
    ]
    closing = ". ".join(
        [
            f"[{path.name}]({path.name})",
            f"Last run: {last_run(path)}",
            *([f"Tables: {', '.join(links)}"] if links else []),
        ]
    )
    parts = [
        f"## {path.stem}",
        f"**{' '.join(layout.question.split())}**",
        *layout.verdict.strip().split("\n"),
        *(_labelled(label, getattr(layout, name)) for label, name in PARTS.items() if getattr(layout, name)),
        f"{closing}.",
    ]
    return "\n\n".join(map(_filled, parts))


def linked(layout: Layout) -> list[str]:
    """The result pages of an experiment, relative to the root: its tables, and what other commands write."""
    return [*(f"{table.file}.md" for table in layout.tables if layout.rows), *layout.pages]


def last_run(path: Path) -> str:
    """When an experiment was last run, as the comments at the head of its file say."""
    match = re.search(r"^# last run: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    if not match:
        raise InputError(f"{path}: its head does not say when it was last run; add `# last run: 2026-11-22`")
    return match[1]


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _labelled(label: str, text: str) -> str:
    return f"*{label}.* {' '.join(text.split()).rstrip('.')}."


def _filled(text: str) -> str:
    """The text in lines of the page's width; no line breaks within brackets."""
    unbroken = re.sub(r"\[[^]]*\]", lambda match: match[0].replace(" ", NO_BREAK), text)
    return textwrap.fill(unbroken, WIDTH, break_on_hyphens=False, break_long_words=False).replace(
        NO_BREAK, " "
    )


def main(arguments: Sequence[str]) -> int:
    """Writes the page of the repository in the named folder, or in this one; returns the exit code."""
    root = Path(*arguments[:1])
    try:
        write_whole(root / PAGE, page(root).encode())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
