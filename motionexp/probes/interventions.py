"""The trajectories of the probes, whose condition changes over a range of timesteps.

A pair (tau_start, tau_end) of edges of the grid is the range tau_end <= t < tau_start; with flow matching it
is tau_end < t <= tau_start (see `tree`).
"""

from motionexp.diffusion.sampling import GuidanceScale
from motionexp.errors import InputError
from motionexp.probes.timesteps import BLOCK, EDGES, PAIRS, Pair
from motionexp.probes.tree import Condition, Trajectory

CONTROL: Pair = (0, 0)
"""The key of the trajectory without a change: a range without a timestep."""


def tampering(caption: str, new_caption: str, guidance_scale: GuidanceScale) -> dict[Pair, Trajectory]:
    """Prompt tampering: the edit's caption inside the range of a pair, the video's caption outside of it.

    Timestep-Constrained One-Shot Video Motion Customization, sections 3.2 and 3.3. All trajectories start at
    t = 1000, from the latents to which the video was inverted with its caption.

    Args:
        caption: of the video.
        new_caption: of the edit.
        guidance_scale: for both captions; 1 (no guidance) or more.

    Returns:
        {pair: trajectory} of every pair, and of `CONTROL`: the video's caption from 1000 to 0.
    """
    old, new = Condition(caption, guidance_scale), Condition(new_caption, guidance_scale)
    top = EDGES[-1]
    control = {CONTROL: Trajectory(top, (old,) * (top // BLOCK))}
    return control | {pair: intervention(pair, top, inside=new, outside=old) for pair in PAIRS}


def partial_guidance(new_caption: str, guidance_scale: GuidanceScale) -> dict[Pair, Trajectory]:
    """Partial guidance: inverted up to tau_start only, then guided by the edit's caption until tau_end.

    Video Diffusion Models Encode Motion in Early Timesteps, sections 3.1.1 and 4.1. Below tau_end the
    condition is the negative caption alone, usually the empty one, as in the inversion.

    Args:
        new_caption: of the edit.
        guidance_scale: for it; 1 (no guidance) or more.

    Returns:
        {pair: trajectory} of every pair.
    """
    new, empty = Condition(new_caption, guidance_scale), Condition(new_caption, 0.0)
    return {pair: intervention(pair, pair[0], inside=new, outside=empty) for pair in PAIRS}


def intervention(pair: Pair, start: int, *, inside: Condition, outside: Condition) -> Trajectory:
    """The trajectory from the edge `start` with one condition inside the pair's range, another one outside.

    Raises InputError if the pair is not two edges of the grid with tau_end below tau_start.
    """
    tau_start, tau_end = pair
    if pair not in PAIRS:
        raise InputError(
            f"tau_start={tau_start}, tau_end={tau_end}: two of {', '.join(map(str, EDGES))}, with tau_end"
            " below tau_start"
        )
    # Descending, as a trajectory's conditions are; an edge stands for the block above it.
    blocks = [edge for edge in reversed(EDGES) if edge < start]
    return Trajectory(start, tuple(inside if tau_end <= edge < tau_start else outside for edge in blocks))
