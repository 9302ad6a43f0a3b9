"""The inverted latents of a cell's reference, from which sampling starts with `inverted_noise=`."""

from typing import TYPE_CHECKING

from torch import Tensor

from motionexp.diffusion import ranks
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.jobs.evaluation import gate_of
from motionexp.jobs.plan import EMPTY_CAPTION, CellPlan
from motionexp.methods.base import TuningMethod
from motionexp.methods.guidance import GuidanceMethod

if TYPE_CHECKING:
    from motionexp.jobs.job import Job


def inverted_reference(
    job: "Job", plan: CellPlan, method: TuningMethod | GuidanceMethod | None
) -> Tensor | None:
    """Latents (1, C, F, h, w) of a cell's reference at the noisiest timestep of the sampling, in fp32.

    The base model inverts, and the result is stored for all jobs. A method with `inverts_tuned` inverts
    itself, on in its window and at the scale of the sampling; that result belongs to one adapter and is not
    stored. All ranks call it.

    Returns:
        None if the job's sampling starts from noise alone.
    """
    sampling, backbone, steps = job.plan.sampling, job.backbone, job.plan.steps_of_inversion
    if not steps:
        return None
    is_tuned = isinstance(method, TuningMethod) and method.inverts_tuned
    if not is_tuned:
        stored = ranks.of_first(_stored(job, plan, steps) if ranks.is_first() else None)
        if stored is not None:
            return stored
    # The empty caption in the layout of guidance's unconditional branch: some networks were trained on no
    # other.
    captions = (plan.reference.caption, EMPTY_CAPTION)
    empty, _ = backbone.guidance_pair(*(job.cache.of_reference(plan.reference, text) for text in captions))
    gate = None
    if isinstance(method, TuningMethod):
        method.scale = sampling.adapter_scale
        gate = gate_of(method, sampling.adapter_scale) if is_tuned else None
        method.switch(False)
    settings = SamplerSettings(steps, guidance_scale=1.0)
    latents = job.cache.latents(plan.reference)
    timesteps = [t for t, _ in backbone.schedule.step_pairs(sampling.sampler.steps)]
    inverted = invert(backbone, latents, empty, None, settings, gate=gate)[max(timesteps)]
    if ranks.is_first() and not is_tuned:
        job.cache.store_inverted(plan.reference, steps, inverted)
    return inverted


def _stored(job: "Job", plan: CellPlan, steps: int) -> Tensor | None:
    """On the CPU, as ranks tell each other."""
    latents = job.cache.inverted(plan.reference, steps)
    return None if latents is None else latents.cpu()
