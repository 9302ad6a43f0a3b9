"""Which condition holds when: the trajectories of the probes that change it over a range of timesteps.

A pair (tau_start, tau_end) of edges of the grid is the range tau_end <= t < tau_start;
with flow matching tau_end < t <= tau_start (see `tree`).
"""

from motionexp.errors import InputError
from motionexp.probes.timesteps import BLOCK, EDGES, PAIRS, Pair
from motionexp.probes.tree import Condition, Trajectory

CONTROL: Pair = (0, 0)
"""The key of the trajectory on which nothing is changed: a range without a timestep."""


def tampering(caption: str, new_caption: str, guidance_scale: float) -> dict[Pair, Trajectory]:
    """Prompt tampering: another caption inside the pair's range, the video's own outside of it.

    Timestep-Constrained One-Shot Video Motion Customization, sections 3.2 and 3.3. All trajectories start at
    t = 1000, from the latents to which the video with its caption was inverted.

    Args:
        caption: the video's.
        new_caption: the edit's.
        guidance_scale: with both of them; from 1 (no guidance).

    Returns:
        Of every pair, and of the control (`CONTROL`): the video's caption from 1000 to 0, guided alike.
    """
    own, new = Condition(caption, guidance_scale), Condition(new_caption, guidance_scale)
    top = EDGES[-1]
    unchanged = {CONTROL: Trajectory(top, (own,) * (top // BLOCK))}
    return unchanged | {pair: intervention(pair, top, inside=new, outside=own) for pair in PAIRS}


def partial_guidance(new_caption: str, guidance_scale: float) -> dict[Pair, Trajectory]:
    """Partial guidance: inverted up to tau_start only, then guided by another caption until tau_end.

    Video Diffusion Models Encode Motion in Early Timesteps, sections 3.1.1 and 4.1. Below tau_end the
    negative caption alone is followed, usually the empty one, as in the inversion that gave the latents.

    Args:
        new_caption: the edit's.
        guidance_scale: with it; from 1 (no guidance).

    Returns:
        Of every pair.
    """
    new, empty = Condition(new_caption, guidance_scale), Condition(new_caption, 0.0)
    return {pair: intervention(pair, pair[0], inside=new, outside=empty) for pair in PAIRS}


def intervention(pair: Pair, start: int, *, inside: Condition, outside: Condition) -> Trajectory:
    """The trajectory from the edge `start` with one condition inside the pair's range, another outside of it.

    Raises InputError where the pair is no two edges of the grid, tau_end below tau_start.
    """
    tau_start, tau_end = pair
    if pair not in PAIRS:
        raise InputError(
            f"tau_start={tau_start}, tau_end={tau_end}: two of {', '.join(map(str, EDGES))}, with tau_end"
            " below tau_start"
        )
    blocks = [edge for edge in reversed(EDGES) if edge < start]
    return Trajectory(start, tuple(inside if tau_end <= edge < tau_start else outside for edge in blocks))
