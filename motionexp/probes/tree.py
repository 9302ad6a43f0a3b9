"""Many denoising trajectories of one video, run as a tree of their shared beginnings.

A probe denoises inverted latents many times, under captions that change along the trajectory. Trajectories
with an equal start are one branch as long as their conditions are equal, and separate where the conditions
differ. All branches at a timestep are evaluated together, in batches of a fixed size.

The blocks of the grid are 100 timesteps wide. Block k holds the sampling timesteps with
100k <= t < 100(k + 1), an equal number in each block. With flow matching, where t goes from 1000 down to
above 0, it holds those with 100k < t <= 100(k + 1). Their number differs between blocks, because the steps
are not evenly spaced in t.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule
from motionexp.diffusion.sampling import GuidanceScale, scale_at, scales_of
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.errors import InputError
from motionexp.probes.timesteps import BLOCK, EDGES

BLOCKS = len(EDGES) - 1


@dataclass(frozen=True)
class Condition:
    """The condition of a step. Raises InputError for a guidance scale that is neither 0 nor from 1 on.

    Attributes:
        caption: may be empty.
        guidance_scale: 1: the caption alone, one network evaluation. Above 1: guided away from the negative
            caption, two evaluations (as `SamplerSettings.guidance_scale`, of which some may be 1 where it
            varies with t). 0: the negative caption alone, one evaluation, in the layout of guidance by this
            caption: some networks know no other layout.
    """

    caption: str
    guidance_scale: GuidanceScale

    def __post_init__(self) -> None:
        scales = scales_of(self.guidance_scale)
        if self.guidance_scale != 0 and not all(1 <= scale < float("inf") for scale in scales):
            raise InputError(f"guidance_scale={self.guidance_scale}: a number from 1 (no guidance)")

    @property
    def guided(self) -> bool:
        """Whether the condition needs an unconditional evaluation."""
        return max(scales_of(self.guidance_scale)) > 1


@dataclass(frozen=True)
class Trajectory:
    """From an edge of the grid down to clean latents. Raises InputError for a wrong start or number.

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
    """Denoising steps, and their network evaluations: two for a guided step, else one."""

    steps: int
    evaluations: int


Branch = tuple[int, tuple[Condition, ...]]
"""(start, conditions so far): what trajectories share until they separate."""


def cost(trajectories: Iterable[Trajectory], counts: Sequence[int]) -> Cost:
    """The cost of `run_tree`.

    Args:
        trajectories: of `run_tree`.
        counts: the sampling steps in each block, from `step_counts`.
    """
    trajectories = list(trajectories)
    steps = evaluations = 0
    for block, count in enumerate(counts):
        # The condition in this block is the last of the branch's past: it decides the evaluations.
        last = [past[-1] for _, past in _branches(trajectories, block)]
        steps += count * len(last)
        evaluations += count * sum(2 if condition.guided else 1 for condition in last)
    return Cost(steps, evaluations)


def cost_one_by_one(trajectories: Iterable[Trajectory], counts: Sequence[int]) -> Cost:
    """The cost of running every trajectory alone."""
    costs = [cost([trajectory], counts) for trajectory in trajectories]
    return Cost(sum(cost.steps for cost in costs), sum(cost.evaluations for cost in costs))


def step_blocks(schedule: Schedule, steps: int) -> list[list[tuple[float, float]]]:
    """The (t, t_prev) of `schedule.step_pairs`, descending, by block: the lowest first.

    Raises InputError if the blocks of a discrete schedule have different numbers of steps, or a block of flow
    matching has none.
    """
    blocks = _by_block(schedule, steps)
    counts = [len(block) for block in blocks]
    # Flow matching: steps are uneven in t, and only an empty block is an error.
    if isinstance(schedule, FlowSchedule):
        if not all(counts):
            # Name the empty blocks, and the smallest number of steps without such a block.
            empty = [f"{EDGES[block]} to {EDGES[block + 1]}" for block in range(BLOCKS) if not blocks[block]]
            enough = (more for more in range(BLOCKS, TIMESTEPS + 1, BLOCKS) if all(_by_block(schedule, more)))
            least = next(enough, None)
            raise InputError(
                f"probe_steps={steps}: at these sigmas (shift {schedule.shift:g}) no step starts in t ="
                f" {', '.join(empty)}; {'no number does' if least is None else f'take probe_steps={least}'}"
            )
    # Discrete: uneven blocks would make an intervention in one block longer than in another.
    elif len(set(counts)) > 1:
        raise InputError(
            f"probe_steps={steps}: a grid of {BLOCK} timesteps does not divide them, the blocks have"
            f" {', '.join(map(str, counts))}; 10, 20, 50 or 100 steps do"
        )
    return blocks


def step_counts(schedule: Schedule, steps: int) -> list[int]:
    """The number of steps of each block, the lowest first. Raises InputError as `step_blocks`."""
    return [len(block) for block in step_blocks(schedule, steps)]


def _by_block(schedule: Schedule, steps: int) -> list[list[tuple[float, float]]]:
    blocks: list[list[tuple[float, float]]] = [[] for _ in range(BLOCKS)]
    for t, t_prev in schedule.step_pairs(steps):
        # The open end differs: flow matching has a step at t = 1000 and none at 0.
        flow = isinstance(schedule, FlowSchedule)
        blocks[math.ceil(t / BLOCK) - 1 if flow else int(t // BLOCK)].append((t, t_prev))
    return blocks


@torch.no_grad()
def run_tree(
    backbone: Backbone,
    trajectories: Sequence[Trajectory],
    starts: Mapping[int, Float[Tensor, "1 c f h w"]],
    steps: int,
    *,
    embed: Callable[[str], Conditioning],
    negative: Conditioning,
    rows: int,
    progress: Callable[[int, int], None] | None = None,
    finished: tuple[int, Tensor] | None = None,
    on_block: Callable[[int, Tensor], None] | None = None,
) -> list[Float[Tensor, "c f h w"]]:
    """Denoise along every trajectory, with eta 0: the results of separate runs at the cost of a tree.

    Args:
        backbone: predicts.
        trajectories: in any order; duplicates are legal.
        starts: {edge: latents at the first sampling timestep of the block below it}.
        steps: sampling steps from 1000 to 0; see `step_blocks`.
        embed: returns the conditioning of a caption.
        negative: the caption that guidance leads away from, from `backbone.embed`.
        rows: evaluations of the network in one batch. The last bits of results depend on it.
        progress: called with (steps done, `cost(...).steps`) after each timestep.
        finished: what `on_block` was last called with in an interrupted run of these trajectories; the run
            continues after this block.
        on_block: called at the end of each block with its number and the (N, C, F, h, w) latents of its
            branches.

    Returns:
        Clean latents in fp32, one for each trajectory, in their order.

    Raises:
        InputError: as `step_blocks`, or a start without latents.
    """
    blocks = step_blocks(backbone.schedule, steps)
    if missing := sorted({trajectory.start for trajectory in trajectories} - starts.keys()):
        raise InputError(
            f"no latents at t = {', '.join(map(str, missing))}, where trajectories start;"
            f" there are latents at t = {', '.join(map(str, sorted(starts)))}"
        )
    # 1. Every condition is embedded once.
    conditions = dict.fromkeys(condition for run in trajectories for condition in run.conditions)
    predictor = _Predictor(backbone, conditions, embed, negative, rows)
    total, done = cost(trajectories, [len(block) for block in blocks]).steps, 0
    # 2. Block by block from noise on; the latents (C, F, h, w) of all branches at the end of a block.
    latents: dict[Branch, Tensor] = {}
    for block in reversed(range(BLOCKS)):
        branches = _branches(trajectories, block)
        if not branches:
            continue
        if finished is not None and block >= finished[0]:
            if block == finished[0]:
                latents = dict(zip(branches, finished[1], strict=True))
            done += len(branches) * len(blocks[block])
            continue
        # A branch begins where the block above left its latents, or at its start: (C, F, h, w).
        beginnings = [
            latents[start, past[:-1]] if len(past) > 1 else starts[start][0] for start, past in branches
        ]
        here = torch.stack([x_t.to(backbone.device, torch.float32) for x_t in beginnings])
        current = [past[-1] for _, past in branches]
        for t, t_prev in blocks[block]:
            here = backbone.schedule.step(here, predictor.predict(here, t, current), t, t_prev)
            done += len(branches)
            if progress is not None:
                progress(done, total)
        # Only the ends of this block are needed below: those above are freed.
        latents = dict(zip(branches, here, strict=True))
        if on_block is not None:
            on_block(block, here)
    return [latents[trajectory.start, trajectory.conditions] for trajectory in trajectories]


def _branches(trajectories: Iterable[Trajectory], block: int) -> list[Branch]:
    """The different branches in a block, with their conditions down to and in it."""
    # A trajectory that starts at or below this edge has not begun.
    alive = [trajectory for trajectory in trajectories if trajectory.start > EDGES[block]]
    # dict.fromkeys keeps the first of equal branches, in the order of the trajectories.
    return list(dict.fromkeys((run.start, run.conditions[: run.start // BLOCK - block]) for run in alive))


class _Predictor:
    """The network's outputs under different conditions, in batches of single evaluations."""

    def __init__(
        self,
        backbone: Backbone,
        conditions: Iterable[Condition],
        embed: Callable[[str], Conditioning],
        negative: Conditioning,
        rows: int,
    ) -> None:
        self.backbone, self.rows = backbone, rows
        # Row numbers of each condition in `captions`; a guided condition has two rows.
        self.conditional: dict[Condition, int] = {}
        self.unconditional: dict[Condition, int] = {}
        captions: list[Conditioning] = []
        for condition in conditions:
            caption = embed(condition.caption)
            # Some networks see the caption's length, so the negative caption is laid out as in guidance.
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
        """Outputs with guidance, of every video under its condition."""
        # 1. An evaluation for each video, and a second one without its caption for each guided video.
        guided = [video for video, condition in enumerate(conditions) if condition.guided]
        videos = [*range(len(conditions)), *guided]
        captions = [self.conditional[condition] for condition in conditions]
        captions += [self.unconditional[conditions[video]] for video in guided]
        # 2. Batches.
        batches = [slice(first, first + self.rows) for first in range(0, len(videos), self.rows)]
        outputs = torch.cat(
            [self.backbone.predict(latents[videos[b]], t, self.captions[captions[b]]) for b in batches]
        )
        # 3. Guidance, for the guided videos alone.
        output, unconditional = outputs.split([len(conditions), len(guided)])
        scales = [scale_at(conditions[video].guidance_scale, t) for video in guided]
        scale = torch.tensor(scales, device=outputs.device).reshape(-1, 1, 1, 1, 1)
        # `output` is a view of `outputs`, made in this call: changing it in place is safe.
        output[guided] = unconditional + scale * (output[guided] - unconditional)
        return output
