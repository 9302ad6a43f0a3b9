"""DDIM inversion: from a video's latents, backwards along the sampling steps, to its initial noise."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.sampling import Gate, Guide, SamplerSettings
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.errors import InputError

LEAST_STEPS = 50
"""The fewest for a video that is sampled again."""


def inversion_steps(schedule: Schedule, steps: int) -> int:
    """The steps to invert a video in that is sampled again in `steps`: a multiple, from `LEAST_STEPS` on.

    In 10 steps the error of the inversion leaves nothing of a video. 10 steps of sampling from exact latents
    return it. It is `steps` itself where no such multiple has all timesteps of the sampling.
    """
    timesteps = set(schedule.timesteps(steps))
    for multiple in range(-(-LEAST_STEPS // steps) * steps, min(2 * LEAST_STEPS, TIMESTEPS) + 1, steps):
        if timesteps <= set(schedule.timesteps(multiple)):
            return multiple
    return steps


@torch.no_grad()
def invert(
    backbone: Backbone,
    latents: Float[Tensor, "b c f h w"],
    conditioning: Conditioning,
    negative: Conditioning | None,
    settings: SamplerSettings,
    *,
    gate: Gate | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[float, Tensor]:
    """Return the latents of videos at every sampling timestep: DDIM's equation, solved from clean to noise.

    Song et al. 2021, arXiv 2010.02502, section 4.3. A sampling step from t to t_prev needs the network's
    output at (x_t, t), but in this direction x_t is unknown. The output at (x_t_prev, t) takes its place: an
    error of first order in the step size. With flow matching the equation is Euler's, solved in this way too.
    Sampling from any of the results with the same captions and settings returns the video, up to that error.

    Args:
        backbone: predicts.
        latents: clean latents, as `Backbone.encode` gives them.
        conditioning: B captions; empty captions are legal.
        negative: captions of the unconditional branch, B or 1; unused without guidance.
        settings: steps and guidance of the sampling to invert; eta must be 0.
        gate: as in `sample_latents`; None: the network as it is.
        progress: called with (steps done, all steps) after each step.

    Returns:
        {t: (B, C, F, h, w)} of every sampling timestep, ascending, in fp32 on the backbone's device.

    Raises:
        InputError: eta is not 0.
        ValueError: guidance without a negative caption, or the numbers of videos and captions differ.
    """
    if settings.eta != 0:
        raise InputError(
            f"eta={settings.eta}: inversion cannot recover the noise that sampling adds; use eta=0"
        )
    guide = Guide.of(backbone, len(latents), conditioning, negative, settings, gate=gate)
    x = latents.to(backbone.device, torch.float32)  # (B, C, F, h, w)
    # Reversed: from the clean end (t_prev = -1 or 0) up to the noisiest timestep.
    pairs = backbone.schedule.step_pairs(settings.steps)[::-1]
    inverted: dict[float, Tensor] = {}
    try:
        for done, (t, t_prev) in enumerate(pairs, start=1):
            x = inverted[t] = _step_back(backbone.schedule, x, guide.predict(x, t), t, t_prev)
            if progress is not None:
                progress(done, len(pairs))
    finally:
        if gate is not None:
            gate(None)
    return inverted


def mixed_noise(inverted: Tensor, noise: Tensor, share: float) -> Tensor:
    """sqrt(p) inverted + sqrt(1 - p) noise, (B, C, F, h, w), with p = `share` from 0 to 1.

    The start of sampling in MotionDirector's code. The variances add up to one where both have variance one
    and are independent. `inverted` may have one row for all of `noise`.
    """
    return math.sqrt(share) * inverted + math.sqrt(1 - share) * noise


def _step_back(schedule: Schedule, x_prev: Tensor, output: Tensor, t: float, t_prev: float) -> Tensor:
    """x_t from x_prev, the latents at t_prev, and the network's output at (x_prev, t)."""
    if schedule.prediction_type == "sample" and schedule.log_snr(t_prev) == math.inf:
        # (x_prev - sqrt(alpha_bar) x_0) / sigma is 0 / 0 at clean latents: take the noise at the label t.
        return schedule.add_noise(x_prev, schedule.to_epsilon(x_prev, output, t), t)
    # DDIM's step is the same formula in both directions: only t and t_prev change places.
    return schedule.step(x_prev, output, t_prev, t)
