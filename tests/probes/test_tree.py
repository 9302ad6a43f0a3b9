"""The tree against every trajectory on its own, denoised by a plain loop, and its cost against counting."""

from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from motionexp.backbones.latte import LatteBackbone
from motionexp.errors import InputError
from motionexp.probes.interventions import CONTROL, partial_guidance, tampering
from motionexp.probes.timesteps import PAIRS, Pair
from motionexp.probes.tree import Condition, Cost, Trajectory, cost, cost_one_by_one, run_tree, step_counts
from tests.support.tiny_models import tiny_backbone

OWN, NEW, NEGATIVE = "a cat", "A red ball rolls 7", "blurred 3 times"
SCALE = 3.0

Starts = dict[int, Tensor]
ConditionOf = Callable[[Pair, int], tuple[str, float]]
"""The caption and the guidance scale that a pair's trajectory has at a timestep."""


def even(steps: int) -> list[int]:
    return [steps // 10] * 10


def in_tampering(pair: Pair, t: int) -> tuple[str, float]:
    start, end = pair
    return (NEW if end <= t < start else OWN), SCALE


def in_partial_guidance(pair: Pair, t: int) -> tuple[str, float]:
    return NEW, SCALE if t >= pair[1] else 0.0


PROBES: dict[str, tuple[dict[Pair, Trajectory], ConditionOf]] = {
    "tampering": (tampering(OWN, NEW, SCALE), in_tampering),
    "partial_guidance": (partial_guidance(NEW, SCALE), in_partial_guidance),
}


def tree_of(
    backbone: LatteBackbone, trajectories: list[Trajectory], starts: Starts, steps: int, **options: Any
) -> list[Tensor]:
    captions = {"embed": lambda caption: backbone.embed([caption]), "negative": backbone.embed([NEGATIVE])}
    return run_tree(backbone, trajectories, starts, steps, **{**captions, "rows": 16, **options})


@torch.no_grad()
def check_alone(
    backbone: LatteBackbone,
    condition_of: ConditionOf,
    pair: Pair,
    start: int,
    starts: Starts,
    steps: int,
    got: Tensor,
) -> None:
    """The result is that of one pair's trajectory, one video and one evaluation at a time."""
    negative, x_t = backbone.embed([NEGATIVE]), starts[start]
    captions = {caption: backbone.embed([caption]) for caption in (OWN, NEW)}
    for t, t_prev in backbone.schedule.step_pairs(steps):
        if t >= start:
            continue
        caption, scale = condition_of(pair, t)
        if scale == 1:
            output = backbone.predict(x_t, t, captions[caption])
        else:
            away, towards = backbone.guidance_pair(captions[caption], negative)
            unconditional = backbone.predict(x_t, t, away)
            output = unconditional + scale * (backbone.predict(x_t, t, towards) - unconditional)
        x_t = backbone.schedule.step(x_t, output, t, t_prev)
    torch.testing.assert_close(got, x_t[0], rtol=1e-5, atol=1e-5)


@pytest.fixture
def batches(backbone: LatteBackbone) -> Iterator[list[int]]:
    """How many videos went through the network at each call."""
    sizes: list[int] = []
    handle = backbone.network.register_forward_pre_hook(
        lambda network, args, kwargs: sizes.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    yield sizes
    handle.remove()


@pytest.mark.parametrize("probe", PROBES)
def test_every_trajectory_is_as_if_it_ran_alone(
    backbone: LatteBackbone, starts: Starts, batches: list[int], probe: str
) -> None:
    trajectories, condition_of = PROBES[probe]
    steps = 10
    progress: list[tuple[int, int]] = []
    branches = list(trajectories.values())
    together = tree_of(backbone, branches, starts, steps, progress=lambda *counts: progress.append(counts))
    total = cost(branches, even(steps))
    assert sum(batches) == total.evaluations
    assert len(progress) == steps
    assert progress[-1] == (total.steps, total.steps)
    # Every third pair, which still has every start and every end.
    for pair, got in list(zip(trajectories, together, strict=True))[::3]:
        check_alone(backbone, condition_of, pair, trajectories[pair].start, starts, steps, got)
    # All differ, or the comparison would show little.
    videos = torch.stack(together).flatten(1)
    assert torch.cdist(videos, videos).fill_diagonal_(torch.inf).min() > 1e-3


@pytest.mark.parametrize("rows", [1, 3])
def test_batches_have_their_size_and_change_nothing(
    backbone: LatteBackbone, starts: Starts, batches: list[int], rows: int
) -> None:
    pairs = [(300, 0), (300, 200), (200, 100), (600, 100), (500, 0), (1000, 0)]
    trajectories = [trajectories[pair] for trajectories, _ in PROBES.values() for pair in pairs]
    free = tree_of(backbone, trajectories, starts, 10)
    batches.clear()
    limited = tree_of(backbone, trajectories, starts, 10, rows=rows)
    assert max(batches) == rows
    assert sum(batches) == cost(trajectories, even(10)).evaluations
    torch.testing.assert_close(torch.stack(limited), torch.stack(free), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "scheduler", [{"timestep_spacing": "leading", "steps_offset": 1}, {"timestep_spacing": "trailing"}]
)
def test_other_spacings_part_at_the_same_edges(
    tmp_path: Path, starts: Starts, scheduler: dict[str, object]
) -> None:
    backbone = tiny_backbone(tmp_path, **scheduler)
    for trajectories, condition_of in PROBES.values():
        pairs = [(700, 300), (300, 0), (1000, 900)]
        together = tree_of(backbone, [trajectories[pair] for pair in pairs], starts, 10)
        for pair, got in zip(pairs, together, strict=True):
            check_alone(backbone, condition_of, pair, trajectories[pair].start, starts, 10, got)


def test_scales_and_starts_are_each_trajectory_s_own(backbone: LatteBackbone, starts: Starts) -> None:
    """Two scales of one caption part, equal trajectories do not, and none needs another's start."""
    conditions = [Condition(NEW, scale) for scale in (1.0, 2.0, 5.0)]
    trajectories = [Trajectory(200, (condition,) * 2) for condition in [*conditions, conditions[0]]]
    trajectories.append(Trajectory(100, (conditions[0],)))
    got = tree_of(backbone, trajectories, {edge: starts[edge] for edge in (100, 200)}, 20)
    for trajectory, latents in zip(trajectories, got, strict=True):
        condition = astuple(trajectory.conditions[0])
        check_alone(backbone, lambda *_, c=condition: c, CONTROL, trajectory.start, starts, 20, latents)
    assert torch.equal(got[0], got[3])


def counted(probe: str, steps: int, pairs: list[Pair]) -> Cost:
    """Different prefixes of (timestep, condition), step by step."""
    trajectories, condition_of = PROBES[probe]
    seen: dict[tuple[object, ...], int] = {}
    for pair in pairs:
        past: tuple[object, ...] = (trajectories[pair].start,)
        for t in range(1000 - 1000 // steps, -1, -1000 // steps):
            if t < trajectories[pair].start:
                past = (*past, condition_of(pair, t))
                seen[past] = 2 if condition_of(pair, t)[1] > 1 else 1
    return Cost(len(seen), sum(seen.values()))


@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize("probe", PROBES)
def test_the_cost_is_that_of_the_different_beginnings(probe: str, steps: int) -> None:
    trajectories, _ = PROBES[probe]
    assert cost(trajectories.values(), even(steps)) == counted(probe, steps, list(trajectories))
    some = [(700, 300), (700, 0), (600, 300)]
    assert cost([trajectories[pair] for pair in some], even(steps)) == counted(probe, steps, some)


def test_the_cost_at_50_steps_is_what_paper_and_pencil_say() -> None:
    tampered, guided = tampering(OWN, NEW, SCALE), partial_guidance(NEW, SCALE)
    assert cost(tampered.values(), even(50)) == Cost(1150, 2300)
    assert cost_one_by_one([tampered[pair] for pair in PAIRS], even(50)) == Cost(2750, 5500)
    assert cost_one_by_one(tampered.values(), even(50)) == Cost(2800, 5600)
    assert cost(guided.values(), even(50)) == Cost(1100, 1375)
    assert cost_one_by_one(guided.values(), even(50)) == Cost(1925, 3025)


def test_steps_that_the_grid_does_not_divide_are_refused(backbone: LatteBackbone, starts: Starts) -> None:
    trajectory = PROBES["tampering"][0][CONTROL]
    for steps in (5, 25):
        with pytest.raises(InputError, match=f"steps={steps}: .* 100 "):
            step_counts(backbone.schedule, steps)
    # The stride of 33 puts four timesteps into the first block.
    with pytest.raises(InputError, match=r"steps=30: .* 100 .* 4, 3, 3"):
        tree_of(backbone, [trajectory], starts, 30)
    assert step_counts(backbone.schedule, 50) == even(50)


def test_a_trajectory_has_a_condition_for_each_block() -> None:
    condition = Condition(OWN, SCALE)
    with pytest.raises(InputError, match=r"t = 300 .* 2 .* 3"):
        Trajectory(300, (condition,) * 2)
    for start in (0, 250, 1100):
        with pytest.raises(InputError, match=f"t = {start}: .* 100, 200"):
            Trajectory(start, (condition,) * (start // 100))


def test_a_start_needs_latents(backbone: LatteBackbone, starts: Starts) -> None:
    trajectories = [PROBES["partial_guidance"][0][pair] for pair in ((400, 0), (700, 0), (1000, 0))]
    with pytest.raises(InputError, match=r"t = 400, 700.* t = 1000"):
        tree_of(backbone, trajectories, {1000: starts[1000]}, 10)


def test_a_run_continues_from_any_of_its_blocks(backbone: LatteBackbone, starts: Starts) -> None:
    runs = list(PROBES["partial_guidance"][0].values())[::5]
    blocks: dict[int, torch.Tensor] = {}
    whole = tree_of(backbone, runs, starts, 10, on_block=blocks.__setitem__)
    assert [*blocks] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    progress: list[tuple[int, int]] = []
    for block in (0, 6):
        again = tree_of(
            *(backbone, runs, starts, 10),
            finished=(block, blocks[block]),
            progress=lambda *counts: progress.append(counts),
        )
        assert torch.equal(torch.stack(again), torch.stack(whole))
        assert len(progress) == block
    assert progress[-1] == (cost(runs, even(10)).steps,) * 2
