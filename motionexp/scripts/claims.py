"""README's claims from the published rows: `python -m motionexp.scripts.claims [ROOT]` (`make tables`).

It writes results/claims.md, .tex and .csv, and the table between two marks in README. The experiments' files
have the claims, under `claims`.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from motionexp.errors import InputError
from motionexp.probes.analysis.boundary import gap_p
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.analysis.rows import read_probes
from motionexp.results.claims import Finding, Measure, commits_of, finding_of, place_of
from motionexp.results.claims_table import write_claims
from motionexp.results.comparisons import Comparison
from motionexp.results.designs import check_unchanged
from motionexp.results.experiments_page import experiment_paths
from motionexp.results.layout import MORE, Claim, Layout
from motionexp.results.layout_file import read_layout
from motionexp.results.published import print_files, read_published
from motionexp.results.versions import check_comparable

MOTION_PROBE = "probe-motion.yaml"
"""The experiment that has the motion of a boundary, beside the one that has the appearance."""
DIGITS = 2


def findings(root: Path) -> Iterator[Finding]:
    """What the published rows say of the claims of all experiments below `root`, in their order.

    Raises:
        InputError: a claim without rows or with too few references, or an experiment that changed after its
            rows were published.
    """
    for path in experiment_paths(root):
        layout = read_layout(path)
        if not layout.claims:
            continue
        if not (root / layout.rows).exists():
            raise InputError(
                f"{place_of(layout.claims[0], path.stem)}: no rows are published in {layout.rows}; run the"
                " experiment and publish them, or take the claim out"
            )
        check_unchanged(path, layout)
        differences = any(claim.differences for claim in layout.claims)
        comparison = Comparison(layout, read_published(root / layout.rows)) if differences else None
        for claim in layout.claims:
            yield (
                finding_of(claim, path.stem, comparison)
                if comparison and claim.differences
                else boundary_finding(claim, path, root, layout)
            )


def boundary_finding(claim: Claim, path: Path, root: Path, layout: Layout) -> Finding:
    """A claim that motion is set before all appearance: of its models, that with the largest p-value decides.

    Raises:
        InputError: a model has no probe, or no boundary can be looked for in it.
    """
    # 1. The boundaries, from the rows of this probe and of that of the motion.
    motion_path = path.with_name(MOTION_PROBE)
    motion = read_layout(motion_path)
    check_unchanged(motion_path, motion)
    rows = [row for of_probe in (layout, motion) for row in read_published(root / of_probe.rows)]
    check_comparable(rows, {*layout.allow_mixed, *motion.allow_mixed})
    boundaries = Analysis(read_probes(rows), {}, {}).boundaries
    # 2. The gap of each model.
    measures = []
    for model in claim.boundaries:
        boundary = boundaries.get((model, "motion-dominant"))
        if boundary is None or boundary.gap.clusters == 0:
            raise InputError(f"{place_of(claim, path.stem)}: {model} has no rows of this probe; run it")
        commits = commits_of(row for row in rows if row.model == model)
        compared, p = f"{model}: appearance minus motion", gap_p(boundary)
        measures.append(Measure(model, compared, "gap", MORE, boundary.gap, DIGITS, p, commits))
    return Finding(claim, path.stem, measures, layout.margin, layout.n)


def main(arguments: Sequence[str]) -> int:
    """Writes the claims of the repository in the named folder, or in this one; returns the exit code."""
    root = Path(*arguments[:1])

    def paths() -> Iterator[Path]:
        yield from write_claims(root, [*findings(root)])

    return print_files(paths())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
