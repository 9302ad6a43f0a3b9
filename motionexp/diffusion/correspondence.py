"""Where the content of a frame is in the other frames: displacements of tokens from frame to frame."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Grid = tuple[int, int]
"""Rows and columns of the tokens of a frame."""
SCORES_AT_ONCE = 2**24
"""Scores of pairs of tokens in memory: 64 MiB in fp32, and as much again for their softmax."""


def places(grid: Grid, like: Tensor) -> Float[Tensor, "p 2"]:
    """(row, column) of the tokens of a frame, in token units."""
    rows, columns = (torch.arange(count, device=like.device, dtype=like.dtype) for count in grid)
    return torch.cartesian_prod(rows, columns)


def displacements(
    query: Float[Tensor, "b i p d"],
    key: Float[Tensor, "b j p d"],
    grid: Grid,
    *,
    factor: float,
    soft: bool,
    frames_at_once: int | None = None,
) -> Float[Tensor, "b i j p 2"]:
    """By how many rows and columns each token of frame i moves to frame j, for all pairs (i, j).

    The scores of a token are `factor` times the product of its query with the keys of frame j. Hard, it moves
    to the highest score, of equal ones to the first. Soft, it moves to the mean of all places, weighted by
    the softmax of the scores, and gradients pass. In memory are the scores of `frames_at_once` frames with
    all frames, and the backward pass computes them again. None: as many as `SCORES_AT_ONCE` allows.

    Returns:
        (B, I, J, P, 2) in token units: [:, i, j] is from frame i of the queries to frame j of the keys.
    """
    coordinates = places(grid, query)
    where = _expected_places if soft else _best_places

    def moved(of_frames: Tensor, keys: Tensor) -> Tensor:
        # (B, I, P, D) and (B, J, P, D) to scores (B, I, J, P, P), and to (B, I, J, P, 2).
        scores = factor * torch.einsum("bipd,bjqd->bijpq", of_frames, keys)
        return where(scores, coordinates) - coordinates

    videos, frames, tokens, _ = key.shape
    at_once = frames_at_once or max(1, SCORES_AT_ONCE // (videos * frames * tokens**2))
    parts = query.split(at_once, dim=1)
    if len(parts) == 1 or not torch.is_grad_enabled():
        return torch.cat([moved(part, key) for part in parts], dim=1)
    return torch.cat([checkpoint(moved, part, key, use_reentrant=False) for part in parts], dim=1)


def _expected_places(scores: Tensor, coordinates: Tensor) -> Tensor:
    return scores.softmax(dim=-1) @ coordinates


def _best_places(scores: Tensor, coordinates: Tensor) -> Tensor:
    return coordinates[scores.argmax(dim=-1)]


def attention_displacements(
    query: Float[Tensor, "b heads f p d"],
    key: Float[Tensor, "b heads f p d"],
    grid: Grid,
    *,
    temperature: float,
    soft: bool,
    mean_of: str = "queries_and_keys",
    frames_at_once: int | None = None,
) -> Float[Tensor, "b f f p 2"]:
    """`displacements` by an attention's queries and keys: DiTFlow's attention motion flow, eqs. 3 to 7.

    Args:
        query, key: after norms and rotary embedding.
        grid: of the P tokens of a frame.
        temperature: multiplies the scores: above 1 it sharpens.
        soft: eq. 7, else the argmax of section 4.2.
        mean_of: the mean over heads is taken of `queries_and_keys` (section 4.1), or of `scores`.
        frames_at_once: as of `displacements`.
    """
    heads, width = query.shape[1], query.shape[-1]
    factor = temperature / math.sqrt(width)
    if mean_of == "scores":
        # mean over h of q_h k_h is one product of the heads side by side: no matrix for each head.
        query, key = (tensor.movedim(1, -2).flatten(-2) for tensor in (query, key))
        factor /= heads
    else:
        query, key = query.mean(dim=1), key.mean(dim=1)
    return displacements(
        query.float(), key.float(), grid, factor=factor, soft=soft, frames_at_once=frames_at_once
    )
