"""The guidance method of a job: checked before weights are loaded, and handed the reference of a cell."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from motionexp.config.schema import method_name
from motionexp.data.base import Reference
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.evaluation import SampleSettings
from motionexp.methods.guidance import GuidanceMethod, Guiding, StepCost, make_guidance

if TYPE_CHECKING:
    from motionexp.jobs.job import Job


def guidance_cost(
    method: Mapping[str, Any],
    memory_limit: float | None,
    backbone: Backbone,
    window: Window,
    references: list[Reference],
    sampling: SampleSettings,
) -> StepCost:
    """What a job's guidance method costs. It loads no weights.

    Raises:
        InputError: the model lacks what the method needs, a reference comes with further videos, the method
            samples one video at a time and `memory_limit` asks for several, or it does not take a setting of
            the sampling.
    """
    if several := [reference.name for reference in references if len(reference.trained_on) > 1]:
        raise InputError(
            f"method={method_name(method)}: it is guided by one video, and {several[0]} has several;"
            " leave it out"
        )
    guidance = make_guidance(method, backbone, window)
    guidance.check(sampling.adapter_scale, sampling.sampler.eta)
    if memory_limit is not None and guidance.one_at_a_time:
        raise InputError(
            f"memory_limit={memory_limit:g}: method={guidance.name} samples one video at a time with"
            " these settings; leave it out"
        )
    return guidance.cost


def guidance_of(job: "Job", reference: Reference) -> GuidanceMethod:
    """The guidance method of a job, with a reference from the job's cache."""
    plan, cache = job.plan, job.cache
    guidance = make_guidance(plan.tuning, job.backbone, plan.sampling_window)
    latents = cache.latents(reference).to(job.device, torch.float32)
    captions = reference.caption, "", plan.sampling.negative_prompt
    guidance.watch(Guiding(latents, *(cache.of_reference(reference, caption) for caption in captions)))
    return guidance
