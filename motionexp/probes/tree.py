"""Many denoising trajectories of one video, run as a tree of their shared beginnings.

A probe denoises inverted latents again and again, under captions that change along the way. Trajectories of
the same start are one branch for as long as their conditions are the same, and part where these part. All
branches alive at a timestep are evaluated together, as many at once as memory allows.

The grid's blocks are 100 timesteps wide; block k holds the sampling timesteps with 100k <= t < 100(k + 1), as
many in each. Of flow matching, where t goes from 1000 down to above 0, it holds those with
100k < t <= 100(k + 1); their number differs from block to block, for its steps are not evenly spaced in t.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.errors import InputError
from motionexp.probes.timesteps import BLOCK, EDGES

BLOCKS = len(EDGES) - 1
# Beyond so many a CPU gets no faster: what lies between two layers no longer fits its caches.
MOST_ROWS_ON_CPU = 16


@dataclass(frozen=True)
class Condition:
    """What the network is told at a step. Raises InputError for a guidance scale that is not 0 or from 1.

    Attributes:
        caption: an empty one is legal.
        guidance_scale: 1: the caption alone, one network evaluation; more: guided away from the negative
            caption, two (as `SamplerSettings.guidance_scale`). 0: the negative caption alone, one evaluation,
            laid out as guidance by this caption has it: some networks know no other layout of it.
    """

    caption: str
    guidance_scale: float

    def __post_init__(self) -> None:
        if self.guidance_scale != 0 and not 1 <= self.guidance_scale < float("inf"):
            raise InputError(f"guidance_scale={self.guidance_scale}: a number from 1 (no guidance)")

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional branch."""
        return self.guidance_scale > 1


@dataclass(frozen=True)
class Trajectory:
    """From an edge of the grid down to clean latents. Raises InputError where the two do not fit.

    Attributes:
        start: the edge, 100 to 1000.
        conditions: one for each block from `start` down to 0.
    """

    start: int
    conditions: tuple[Condition, ...]

    def __post_init__(self) -> None:
        if self.start not in EDGES[1:]:
            raise InputError(f"a trajectory from t = {self.start}: it starts at 100, 200, ... or 1000")
        if len(self.conditions) != self.start // BLOCK:
            raise InputError(
                f"a trajectory from t = {self.start} with {len(self.conditions)} conditions: it needs"
                f" {self.start // BLOCK}, one for each {BLOCK} timesteps down to 0"
            )


@dataclass(frozen=True)
class Cost:
    """Denoising steps, and the network evaluations that they take: two for a guided step, else one."""

    steps: int
    evaluations: int


Branch = tuple[int, tuple[Condition, ...]]
"""(start, conditions so far): what trajectories share until they part."""


def cost(trajectories: Iterable[Trajectory], counts: Sequence[int]) -> Cost:
    """What `run_tree` takes.

    Args:
        trajectories: as it gets them.
        counts: the sampling steps in each block, as `step_counts` gives them.
    """
    trajectories = list(trajectories)
    steps = evaluations = 0
    for block, count in enumerate(counts):
        last = [past[-1] for _, past in _branches(trajectories, block)]
        steps += count * len(last)
        evaluations += count * sum(2 if condition.guided else 1 for condition in last)
    return Cost(steps, evaluations)


def cost_one_by_one(trajectories: Iterable[Trajectory], counts: Sequence[int]) -> Cost:
    """As `cost`, of every trajectory on its own."""
    alone = [cost([each], counts) for each in trajectories]
    return Cost(sum(each.steps for each in alone), sum(each.evaluations for each in alone))


def step_blocks(schedule: Schedule, steps: int) -> list[list[tuple[float, float]]]:
    """The (t, t_prev) of `schedule.step_pairs`, descending, by block: the lowest first.

    Raises InputError where a discrete schedule's blocks do not have equally many steps, or a block of flow
    matching has none.
    """
    blocks = _by_block(schedule, steps)
    counts = [len(block) for block in blocks]
    if isinstance(schedule, FlowSchedule):
        if not all(counts):
            raise InputError(_empty_blocks(schedule, steps, counts))
    elif len(set(counts)) > 1:
        raise InputError(
            f"steps={steps}: a grid of {BLOCK} timesteps does not divide them, the blocks have"
            f" {', '.join(map(str, counts))}; 10, 20, 50 or 100 steps do"
        )
    return blocks


def step_counts(schedule: Schedule, steps: int) -> list[int]:
    """How many steps each block has, the lowest first. Raises InputError as `step_blocks`."""
    return [len(block) for block in step_blocks(schedule, steps)]


def _by_block(schedule: Schedule, steps: int) -> list[list[tuple[float, float]]]:
    blocks: list[list[tuple[float, float]]] = [[] for _ in range(BLOCKS)]
    for t, t_prev in schedule.step_pairs(steps):
        flow = isinstance(schedule, FlowSchedule)
        blocks[math.ceil(t / BLOCK) - 1 if flow else int(t // BLOCK)].append((t, t_prev))
    return blocks


def _empty_blocks(schedule: FlowSchedule, steps: int, counts: Sequence[int]) -> str:
    """What is wrong with a number of steps, and which would do."""
    empty = [
        f"{low} to {high}" for (low, high), count in zip(pairwise(EDGES), counts, strict=True) if not count
    ]
    enough = (more for more in range(BLOCKS, TIMESTEPS + 1, BLOCKS) if all(_by_block(schedule, more)))
    least = next(enough, None)
    advice = "no number of steps does" if least is None else f"{least} steps do"
    return (
        f"steps={steps}: at these sigmas (shift {schedule.shift:g}) no step starts in t = {', '.join(empty)};"
        f" {advice}"
    )


@torch.no_grad()
def run_tree(
    backbone: Backbone,
    trajectories: Sequence[Trajectory],
    starts: Mapping[int, Float[Tensor, "1 c f h w"]],
    steps: int,
    *,
    embed: Callable[[str], Conditioning],
    negative: Conditioning,
    memory: float,
    progress: Callable[[int, int], None] | None = None,
) -> list[Float[Tensor, "c f h w"]]:
    """Denoise along every trajectory, with eta 0: the results of separate runs, at a tree's cost.

    Args:
        backbone: predicts.
        trajectories: in any order; two may be equal.
        starts: by edge, the latents at the first sampling timestep of the block below it.
        steps: sampling steps from 1000 to 0; see `step_blocks`.
        embed: one caption to its conditioning.
        negative: the caption that guidance leads away from, as `backbone.embed` gives it.
        memory: bytes that a batch may fill beside the weights; one evaluation at least is made at a time.
        progress: called with (steps done, `cost(...).steps`) after each timestep.

    Returns:
        Clean latents in fp32, one for each trajectory, in their order.

    Raises:
        InputError: as `step_blocks`, or a start has no latents.
    """
    blocks = step_blocks(backbone.schedule, steps)
    if missing := sorted({each.start for each in trajectories} - starts.keys()):
        raise InputError(
            f"no latents at t = {', '.join(map(str, missing))}, where trajectories start;"
            f" there are latents at t = {', '.join(map(str, sorted(starts)))}"
        )
    used = dict.fromkeys(condition for each in trajectories for condition in each.conditions)
    predictor = _Predictor(backbone, used, embed, negative, memory)
    total, done = cost(trajectories, [len(block) for block in blocks]).steps, 0
    latents: dict[Branch, Tensor] = {}
    for block in reversed(range(BLOCKS)):
        branches = _branches(trajectories, block)
        if not branches:
            continue
        beginnings = [_beginning(branch, latents, starts) for branch in branches]
        here = torch.stack([each.to(backbone.device, torch.float32) for each in beginnings])
        conditions = [past[-1] for _, past in branches]
        for t, t_prev in blocks[block]:
            here = backbone.schedule.step(here, predictor.predict(here, t, conditions), t, t_prev)
            done += len(branches)
            if progress is not None:
                progress(done, total)
        latents = dict(zip(branches, here, strict=True))
    return [latents[each.start, each.conditions] for each in trajectories]


def _branches(trajectories: Iterable[Trajectory], block: int) -> list[Branch]:
    """The different branches in a block, each with its conditions down to and in it."""
    alive = [each for each in trajectories if each.start > EDGES[block]]
    return list(dict.fromkeys((each.start, each.conditions[: each.start // BLOCK - block]) for each in alive))


def _beginning(branch: Branch, above: Mapping[Branch, Tensor], starts: Mapping[int, Tensor]) -> Tensor:
    """(C, F, h, w): where a branch stood at the end of the block above, or where it starts."""
    start, past = branch
    return above[start, past[:-1]] if len(past) > 1 else starts[start][0]


class _Predictor:
    """The network's outputs under different conditions, in batches of single evaluations."""

    def __init__(
        self,
        backbone: Backbone,
        conditions: Iterable[Condition],
        embed: Callable[[str], Conditioning],
        negative: Conditioning,
        memory: float,
    ) -> None:
        self.backbone, self.memory = backbone, memory
        self.conditional: dict[Condition, int] = {}
        self.unconditional: dict[Condition, int] = {}
        captions: list[Conditioning] = []
        for condition in conditions:
            caption = embed(condition.caption)
            if condition.guidance_scale == 0:
                caption = backbone.guidance_pair(caption, negative)[0]
            elif condition.guided:
                unconditional, caption = backbone.guidance_pair(caption, negative)
                self.unconditional[condition] = len(captions)
                captions.append(unconditional)
            self.conditional[condition] = len(captions)
            captions.append(caption.trimmed())
        self.captions = Conditioning.cat(captions)

    def predict(
        self, latents: Float[Tensor, "b c f h w"], t: float, conditions: Sequence[Condition]
    ) -> Float[Tensor, "b c f h w"]:
        """Outputs with guidance, each video's under its own condition."""
        guided = [video for video, condition in enumerate(conditions) if condition.guided]
        videos = [*range(len(conditions)), *guided]
        captions = [self.conditional[condition] for condition in conditions]
        captions += [self.unconditional[conditions[video]] for video in guided]
        size = self._rows_at_once(latents)
        outputs = torch.cat(
            [
                self.backbone.predict(latents[videos[batch]], t, self.captions[captions[batch]])
                for batch in (slice(first, first + size) for first in range(0, len(videos), size))
            ]
        )
        output, unconditional = outputs.split([len(conditions), len(guided)])
        scales = [conditions[video].guidance_scale for video in guided]
        scale = torch.tensor(scales, device=outputs.device).reshape(-1, 1, 1, 1, 1)
        output[guided] = unconditional + scale * (output[guided] - unconditional)
        return output

    def _rows_at_once(self, latents: Tensor) -> int:
        channels, frames, height, width = latents.shape[1:]
        fitting = max(1, int(self.memory // self.backbone.predict_bytes((channels, frames, height, width))))
        return min(fitting, MOST_ROWS_ON_CPU) if self.backbone.device.type == "cpu" else fitting
