"""DDIM inversion: from a video's latents, backwards along the sampling steps, to the noise that makes it."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.sampling import Guide, SamplerSettings
from motionexp.errors import InputError


@torch.no_grad()
def invert(
    backbone: Backbone,
    latents: Float[Tensor, "b c f h w"],
    conditioning: Conditioning,
    negative: Conditioning | None,
    settings: SamplerSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[float, Tensor]:
    """The latents of videos at every sampling timestep: DDIM's equation, solved from clean to noise.

    Song et al. 2021, arXiv 2010.02502, section 4.3. Each sampling step from t to t_prev is taken the other
    way round. What the network says at t cannot be asked before x_t is known, so that it is asked at the
    latents of t_prev with the label t: an error of first order in the step. With flow matching it is Euler's
    equation, solved in the same way. Sampling on from any of the
    results with the same captions and settings gives the video back, up to that error.

    Args:
        backbone: predicts.
        latents: clean latents, as `Backbone.encode` gives them.
        conditioning: B captions, empty ones too.
        negative: captions of the unconditional branch, B or 1; unused without guidance.
        settings: steps and guidance of the sampling that is inverted; eta must be 0.
        progress: called with (steps done, all steps) after each step.

    Returns:
        {t: (B, C, F, h, w)} of every sampling timestep, ascending, in fp32 on the backbone's device.

    Raises:
        InputError: eta is not 0.
        ValueError: what the settings need is missing, or B differs.
    """
    if settings.eta != 0:
        raise InputError(
            f"eta={settings.eta}: the noise that it adds cannot be traced back; invert with eta=0"
        )
    guide = Guide.of(backbone, len(latents), conditioning, negative, settings)
    here = latents.to(backbone.device, torch.float32)
    pairs = backbone.schedule.step_pairs(settings.steps)[::-1]
    inverted: dict[float, Tensor] = {}
    for done, (t, t_prev) in enumerate(pairs, start=1):
        here = inverted[t] = _step_back(backbone.schedule, here, guide.predict(here, t), t, t_prev)
        if progress is not None:
            progress(done, len(pairs))
    return inverted


def _step_back(schedule: Schedule, x_prev: Tensor, output: Tensor, t: float, t_prev: float) -> Tensor:
    """x_t from the latents of t_prev and the network's output on them with the label t."""
    if schedule.prediction_type == "sample" and schedule.log_snr(t_prev) == math.inf:
        # Clean latents and an x_0 do not tell the noise: it is what the network took for noise at its label.
        return schedule.add_noise(x_prev, schedule.to_epsilon(x_prev, output, t), t)
    return schedule.step(x_prev, output, t_prev, t)
