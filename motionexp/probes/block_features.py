"""Outputs of a backbone's blocks at a timestep, read by forward hooks."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from motionexp.diffusion.backbone import Backbone, Conditioning

PLACES = 4
"""Sides of the grid to which the output of a block is averaged; fewer where it has fewer tokens."""
VIDEOS_PER_CALL = 16


@contextmanager
def module_outputs(network: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Yield {name: output} of the named modules, in the order in which they ran; of a tuple, the first entry.

    Each forward pass replaces the outputs of the pass before. The hooks are removed at the end.

    Args:
        network: is run by the caller.
        names: of `network.named_modules()`.
    """
    outputs: dict[str, Tensor] = {}

    def store(name: str, module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs[name] = output[0] if isinstance(output, tuple) else output

    # The handles go with the stack: a hook that stayed would keep activations of every later call.
    with ExitStack() as hooks:
        for name in names:
            handle = network.get_submodule(name).register_forward_hook(partial(store, name))
            hooks.callback(handle.remove)
        yield outputs


@torch.no_grad()
def motion_blocks(backbone: Backbone, caption: Conditioning) -> list[str]:
    """The names of an early, a middle and a late block: the first, the middle and the last to run.

    Blocks are the modules that hold the motion attention (`projections("motion")`): Latte's temporal blocks,
    those of a U-Net's temporal transformers, CogVideoX's 3D blocks.

    Args:
        backbone: runs once, on zeros: the modules of a U-Net are not listed in the order in which they run.
        caption: any one caption.
    """
    holders = dict.fromkeys(name.rsplit(".", 2)[0] for name in backbone.projections("motion")["q"])
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    with module_outputs(backbone.network, holders) as outputs:
        backbone.predict(torch.zeros(1, *shape), 0, caption)
    # A short network has fewer than three blocks, so names may be equal.
    ran = list(outputs)
    return list(dict.fromkeys([ran[0], ran[len(ran) // 2], ran[-1]]))


@torch.no_grad()
def block_features(
    backbone: Backbone,
    x_t: Float[Tensor, "b c f y x"],
    t: float,
    caption: Conditioning,
    blocks: Sequence[str],
) -> dict[str, Float[Tensor, "b d"]]:
    """Outputs of blocks at x_t, averaged over a grid of `PLACES` x `PLACES` places in each frame.

    The grid preserves positions. With averages over the whole frame, the blocks of `tiny_latte` hardly
    distinguish motions at t = 600 (two-alternative accuracy 56%, with the grid 95%).

    Args:
        backbone: predicts.
        x_t: (B, C, F, h, w) noisy latents.
        t: their timestep.
        caption: one row, for all videos.
        blocks: names from `motion_blocks`.

    Returns:
        fp32 on the CPU; D is frames x channels x places.
    """
    parts = []
    with module_outputs(backbone.network, blocks) as outputs:
        for videos in x_t.split(VIDEOS_PER_CALL):
            backbone.predict(videos, t, caption.repeat(len(videos)))
            # Pooled at once: the blocks' own outputs are many times larger than their means.
            parts.append({name: pooled(outputs[name], videos.shape) for name in blocks})
    return {name: torch.cat([part[name] for part in parts]) for name in blocks}


def pooled(output: Tensor, latents: Sequence[int]) -> Float[Tensor, "b d"]:
    """A block's tokens of videos, averaged to a grid of places in each frame, fp32 on the CPU.

    Args:
        output: (B S, F, D) of attention along time, or (B, F S, D) of attention over all; S tokens a frame.
        latents: (B, C, F, h, w), the shape of the videos' latents.
    """
    videos, _, frames, height, width = latents
    # 1. (B, F, S, D), from either layout of attention.
    if len(output) == videos:
        tokens = output.unflatten(1, (frames, -1))
    else:
        tokens = output.unflatten(0, (videos, -1)).transpose(1, 2)
    # 2. (B F, D, rows, columns): a frame's tokens have the aspect ratio of its latents.
    rows = math.isqrt(tokens.shape[2] * height // width)
    grid = tokens.float().unflatten(2, (rows, -1)).flatten(0, 1).movedim(-1, 1)
    # 3. (B F, D, places down, places across), flattened to one row for each video.
    places = adaptive_avg_pool2d(grid, (min(PLACES, grid.shape[2]), min(PLACES, grid.shape[3])))
    return places.reshape(videos, -1).cpu()
