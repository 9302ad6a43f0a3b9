"""DiTFlow's test of its own signal: `python -m motionexp.scripts.attention_flow [MODEL ...]`.

Pondaven et al. 2025 (arXiv 2412.07776, appendix D): the content of a video's first frame is moved in a known
direction, and the displacements that a block's attention gives are compared with the motion, token by token,
by cosine. The paper has 0.857 for CogVideoX-2B and 0.734 for 5B and calls 0.5 the value of random directions.
Cosines of random directions are 0, so that its numbers must be (1 + cosine) / 2: the table has both.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from motionexp.backbones import load_backbone
from motionexp.data.base import Reference
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.correspondence import attention_displacements, places
from motionexp.diffusion.hooks import Attended, Place, grid_of
from motionexp.diffusion.reading import Reader
from motionexp.diffusion.schedule import generator
from motionexp.methods.ditflow import flow_places
from motionexp.results.formats import Grid
from motionexp.scripts.programs import exit_code

MODELS = ("tiny_latte", "tiny_cogvideox", "tiny_unet3d")
VIDEOS = 14  # as in the paper
FURTHEST = 0.5
"""Of a frame's side: how far the content moves from the first frame to the last."""
LEAST_TOKENS = 0.5
"""Pairs of frames between which the content moves by less are left out: a token cannot follow it."""


class Agreement(NamedTuple):
    """How well a block's displacements agree with the motion.

    Attributes:
        cosine: mean over tokens that move and stay inside; a displacement of 0 counts as 0.
        of_scores: the same where the mean over heads is of scores, and not of queries and keys.
        chance: the same of displacements to random tokens. It is above 0: a token that stays inside has more
            tokens before it than behind it.
        still: share of the tokens whose displacement is 0.
    """

    cosine: float
    of_scores: float
    chance: float
    still: float


def moved_video(reference: Reference, number: int) -> tuple[np.ndarray, tuple[float, float]]:
    """The reference's first frame, moved in a random direction at a constant speed.

    Content that leaves at one side comes back at the other.

    Returns:
        Frames (F, H, W, 3), and the rows and columns in pixels by which a frame moves.
    """
    frames, height, width = reference.frames.shape[:3]
    angle = 2 * math.pi * float(torch.rand((), generator=generator("attention flow", number)))
    speed = FURTHEST * min(height, width) / (frames - 1)
    step = speed * math.sin(angle), speed * math.cos(angle)
    first = reference.frames[0]
    moved = [
        np.roll(first, (round(frame * step[0]), round(frame * step[1])), axis=(0, 1))
        for frame in range(frames)
    ]
    return np.stack(moved), step


def agreement(flow: Tensor, step: tuple[float, float], grid: tuple[int, int]) -> tuple[float, float]:
    """Mean cosine of displacements (1, F, F, P, 2) to a motion of `step` tokens (rows, columns) a frame.

    Returns:
        The cosine, and the share of displacements that are 0, of tokens that move and stay inside.
    """
    frames = flow.shape[1]
    times = torch.arange(frames, dtype=torch.float32)
    truth = (times[None, :] - times[:, None])[..., None] * torch.tensor(step)  # (F, F, 2)
    start = places(grid, truth)  # (P, 2)
    goal = start + truth[:, :, None]  # (F, F, P, 2)
    sides = torch.tensor(grid, dtype=torch.float32) - 1
    counts = ((goal >= 0) & (goal <= sides)).all(dim=-1) & (truth.norm(dim=-1) >= LEAST_TOKENS)[..., None]
    ours, theirs = flow[0][counts], truth[:, :, None].expand_as(flow[0])[counts]
    cosines = torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)
    return float(cosines.mean()), float((ours == 0).all(dim=-1).float().mean())


@torch.no_grad()
def agreements(
    backbone: Backbone, references: Sequence[Reference]
) -> Iterator[tuple[Place, list[Agreement]]]:
    """The agreement of every block with attention that DiTFlow can read, one for each reference."""
    kind = flow_places(backbone, None)[0][0]
    having = [number for number, block in enumerate(backbone.blocks) if block.attentions.get(kind)]
    empty = backbone.embed([""])
    for number in having:
        yield (
            (kind, number),
            [
                _of_video(backbone, empty, (kind, number), *moved_video(reference, index))
                for index, reference in enumerate(references)
            ],
        )


def _of_video(
    backbone: Backbone, empty: Conditioning, place: Place, frames: np.ndarray, step: tuple[float, float]
) -> Agreement:
    latents = backbone.encode(torch.from_numpy(frames)[None])
    with Reader(backbone) as reader:
        parts = reader.attention(latents, 0.0, empty, [place])
    of_parts = [_of_attention(part, latents, frames, step) for part in parts]
    return Agreement(*(sum(values) / len(values) for values in zip(*of_parts, strict=True)))


def _of_attention(
    part: Attended, latents: Tensor, frames: np.ndarray, step: tuple[float, float]
) -> Agreement:
    count, height, width = frames.shape[:3]
    grid = grid_of(part.query.shape[3], *latents.shape[3:])
    # In tokens, from one latent frame to the next.
    latent_frames = (count - 1) / max(1, latents.shape[2] - 1)
    in_tokens = step[0] * grid[0] / height * latent_frames, step[1] * grid[1] / width * latent_frames
    flows = [
        attention_displacements(
            part.query, part.key, grid, temperature=1.0, soft=False, mean_of=mean_of
        ).cpu()
        for mean_of in ("queries_and_keys", "scores")
    ]
    start = places(grid, flows[0])
    goals = torch.randint(len(start), flows[0].shape[:-1], generator=generator("attention flow by chance"))
    (cosine, still), (of_scores, _), (chance, _) = (
        agreement(flow, in_tokens, grid) for flow in (*flows, start[goals] - start)
    )
    return Agreement(cosine, of_scores, chance, still)


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Print the table of the models with these names in `conf/model/`, by default the bundled ones."""
    lines, console = list[tuple[str, ...]](), Console()
    for model in arguments or MODELS:
        backbone = load_backbone(f"bundled:{model}", precision="fp32")
        suite, size = ShapesReferences(), (backbone.frames, backbone.height, backbone.width)
        references = [suite.read(name, *size) for name in suite.names()[:VIDEOS]]
        for (kind, number), values in agreements(backbone, references):
            cosine, of_scores, chance, still = (
                sum(column) / len(values) for column in zip(*values, strict=True)
            )
            numbers = (f"{number:.2f}" for number in (cosine, (1 + cosine) / 2, of_scores, chance))
            texts = (*numbers, f"{still:.0%}")
            lines.append((model, str(number), kind, *texts, str(len(values))))
    headings = (
        "model",
        "block",
        "attention",
        "cosine",
        "(1 + c) / 2",
        "of scores",
        "by chance",
        "still",
        "n",
    )
    console.print(Grid(headings, lines, "ll").terminal())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
