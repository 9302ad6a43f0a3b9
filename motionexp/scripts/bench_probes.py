"""What the tree of a probe saves here: `python -m motionexp.scripts.bench_probes [OVERRIDES]` (`make bench`).

All pairs of a probe run as a tree, as 55 batched runs, and as 55 runs one by one with one network evaluation
at a time. The three alternate in one run, so that other load on the machine affects all. One by one is timed
twice: from inverted latents, and with an inversion for each of the 55 runs (the tree then includes its single
inversion). The tree also runs the control without tampering; the 55 runs do not. Ten sampling steps replace
fifty: costs are proportional to the steps. Writes rows to `outputs/bench/probes/`.
"""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from motionexp.config.compose import load
from motionexp.config.schema import JobConfig
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings, initial_noise
from motionexp.jobs.job import Job
from motionexp.probes.interventions import CONTROL, partial_guidance, tampering
from motionexp.probes.timesteps import EDGES, Pair
from motionexp.probes.tree import Trajectory, cost, cost_one_by_one, run_tree, step_counts
from motionexp.results.rows import ROWS_NAME, Row
from motionexp.scripts.bench import DEFAULTS, Times, as_row, write
from motionexp.scripts.programs import exit_code

ROUNDS = 3
STEPS = 10
ROWS = 16  # evaluations in a batch
UNGUIDED = SamplerSettings(steps=STEPS, guidance_scale=1.0)
NUMBERED = "|"


def apart(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """The trajectories with a number before their captions, so that no two share a beginning."""
    return [
        replace(
            trajectory,
            conditions=tuple(
                replace(condition, caption=f"{number}{NUMBERED}{condition.caption}")
                for condition in trajectory.conditions
            ),
        )
        for number, trajectory in enumerate(trajectories)
    ]


def tree_times(backbone: Backbone, name: str, trajectories: Mapping[Pair, Trajectory], caption: str) -> Times:
    """How many times slower than the tree the 55 runs are, in wall time and in network evaluations.

    Args:
        caption: of the inversion.
    """
    pairs = [trajectory for pair, trajectory in trajectories.items() if pair != CONTROL]
    captions = {condition.caption for run in trajectories.values() for condition in run.conditions}
    embedded = {caption: backbone.embed([caption]) for caption in captions}
    negative = backbone.embed([""])
    # The time does not depend on the content of the latents.
    noise = initial_noise(0, 0, backbone.latent_shape(backbone.frames, backbone.height, backbone.width))[None]
    starts = dict.fromkeys(EDGES[1:], noise)

    def seconds(runs: Iterable[Sequence[Trajectory]], rows: int) -> float:
        start = time.perf_counter()
        for run in runs:
            latents = run_tree(
                *(backbone, run, starts, STEPS),
                embed=lambda caption: embedded[caption.rpartition(NUMBERED)[2]],
                negative=negative,
                rows=rows,
            )
            latents[-1].cpu()
        return time.perf_counter() - start

    def inversions(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            inverted = invert(backbone, noise, backbone.embed([caption]), None, UNGUIDED)
            inverted[max(inverted)].cpu()
        return time.perf_counter() - start

    # The tree comes last: the first calls of all are slow.
    inverted_each, inverted_once = inversions(len(pairs)), inversions(1)
    one_by_one = seconds([[run] for run in pairs], 1)
    batched = seconds([apart(pairs)], ROWS)
    tree = seconds([list(trajectories.values())], ROWS)
    counts = step_counts(backbone.schedule, STEPS)
    evaluations = cost_one_by_one(pairs, counts).evaluations / cost(trajectories.values(), counts).evaluations
    return [
        ("tree_evaluations_ratio", name, evaluations),
        ("tree_speedup_batched", name, batched / tree),
        ("tree_speedup_one_by_one", name, one_by_one / tree),
        ("tree_speedup_inverting_each", name, (one_by_one + inverted_each) / (tree + inverted_once)),
    ]


def measure(cfg: JobConfig) -> list[Row]:
    """Time both probes `ROUNDS` times, alternating."""
    job = Job(cfg, Console(quiet=True))
    backbone, reference = job.backbone, job.references[0]
    new_caption = reference.edits[0].caption
    probes = {
        "tampering": (tampering(reference.caption, new_caption, cfg.guidance_scale), reference.caption),
        "partial_guidance": (partial_guidance(new_caption, cfg.guidance_scale), ""),
    }
    rows = []
    for round_ in range(ROUNDS):
        for name, (trajectories, caption) in probes.items():
            fields = {"method": name, "tau": 1000.0, "steps": STEPS}
            times = tree_times(backbone, name, trajectories, caption)
            rows += [as_row(job, round_, entry, **fields) for entry in times]
    return rows


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Benchmark the model of the overrides (default: the bundled one) in fp32."""
    cfg = load([*DEFAULTS, *arguments])
    write(measure(cfg), Path(cfg.output) / "probes" / ROWS_NAME)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
