"""The page of what was found, docs/findings.md (`make tables` writes its sections).

The introduction is written in the page itself and stays. Each section has a figure, and the questions,
answers and verdicts of experiments, which stand in the files of these experiments alone.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motionexp.results.experiments_page import NOT_RUN, filled, write_page
from motionexp.results.layout import Layout
from motionexp.results.layout_file import read_layout

PAGE = Path("docs/findings.md")
FIGURES = Path("results/shapes/figures")


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: its heading.
        figures: the panels of its figure, names in `FIGURES`. Those that are not drawn yet are left out.
        about: what the figure shows.
        experiments: whose answers and verdicts it has.
    """

    title: str
    figures: tuple[str, ...]
    about: str
    experiments: tuple[str, ...]


MODELS = ("tiny_latte", "tiny_cogvideox", "tiny_unet3d")
SECTIONS = (
    Section(
        "Gate or train",
        tuple(f"gate-{model}" for model in MODELS),
        "Motion against background leakage of adapters that were trained in the window or at all timesteps,"
        " and applied in the window or always, at three adapter scales.",
        ("gate", "any-lora", "tuned-baseline-search", "tuned-baseline", "rank-over-t"),
    ),
    Section(
        "Motion against leakage",
        ("tau-settings", *(f"tau-settings-{model}" for model in MODELS[1:])),
        "Motion against background leakage of each setting, tiny_latte first.",
        ("tau-again", "tau", "comparison", "contrast", "edit-kinds", "models"),
    ),
    Section(
        "When motion and appearance are set",
        ("prediction",),
        "The log-SNR at which each factor is set: predicted from the energies of the data, and measured by"
        " probes.",
        ("probe-tampering", "probe-motion", "predict"),
    ),
    Section(
        "Projections and ranks",
        ("projections", "rank"),
        "Motion and background leakage by tuned projections, and by rank.",
        ("projections", "rank"),
    ),
)


def page(root: Path) -> str:
    """The page's text, of the files below the repository's root."""
    introduction = (root / PAGE).read_text(encoding="utf-8").partition("\n## ")[0].strip()
    sections = [section(number, entry, root) for number, entry in enumerate(SECTIONS, start=1)]
    return "\n\n".join([introduction, *sections]) + "\n"


def section(number: int, entry: Section, root: Path) -> str:
    """A section: its figure, then its experiments."""
    images = [
        f"![{name}](../{FIGURES / name}.png)"
        for name in entry.figures
        if (root / FIGURES / f"{name}.png").exists()
    ]
    layouts = {name: read_layout(root / "experiments" / f"{name}.yaml") for name in entry.experiments}
    return "\n\n".join(
        [
            f"## {entry.title}",
            *images,
            filled(f"**Figure {number}.** {entry.about} Bars: 95% bootstrap intervals over references."),
            *(part for name, layout in layouts.items() for part in experiment(name, layout)),
        ]
    )


def experiment(name: str, layout: Layout) -> list[str]:
    """The paragraphs of an experiment: its question with a link, its answer, then its verdict."""
    question, answer = (" ".join(text.split()) for text in (layout.question, layout.answer or NOT_RUN))
    opening = filled(f"*{question}* ([{name}](../experiments/README.md#{name}))")
    if not layout.answer:
        return [opening, answer]
    # A verdict may begin with the answer, which is said once.
    verdict = layout.verdict.strip().removeprefix(answer).strip()
    return [opening, filled(f"**{answer}**"), *map(filled, verdict.split("\n"))]


def main(arguments: Sequence[str]) -> int:
    """Writes the page of what was found; returns the exit code."""
    return write_page(arguments, PAGE, page)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
