"""What a window means in the steps of a sampling, and the recipe of that sampling, in words."""

from typing import TYPE_CHECKING

from motionexp.config.schema import RECIPE_SETTINGS, ModelConfig
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule
from motionexp.diffusion.schedule import EVERYWHERE, TIMESTEPS, Window
from motionexp.diffusion.solvers import AdapterSteps

if TYPE_CHECKING:
    from motionexp.jobs.plan import JobPlan


def window_line(job: "JobPlan") -> str:
    """The sampling steps that have the adapter on, with what tells a job from the others of a sweep."""
    schedule, settings = job.backbone.schedule, job.row_settings
    sampling = [str(settings["sampler"])]
    sampling += [f"shift {schedule.shift:.3g}"] if isinstance(schedule, FlowSchedule) else []
    spacing = settings["timestep_spacing"]
    sampling += [f"spacing {spacing}"] if spacing else []
    acts: object = job.adapter_steps
    if job.guidance is not None and job.guidance.at_start:
        acts = "the method sets the latents that the sampling starts from"
    return f"{job.model.name}, {', '.join(sampling)}, {_bounds(job.sampling_window)}: {acts}"


def window_warnings(
    steps: AdapterSteps, window: Window, schedule: Schedule, span: Window = EVERYWHERE
) -> list[str]:
    """That none or all of the sampling steps lie in a window, for a user to know before a job runs.

    `span`: the timesteps of the networks that are tuned.
    """
    shown = _bounds(window)
    setting = "shift=" if isinstance(schedule, FlowSchedule) else "timestep_spacing="
    advice = f"another tau=, steps= or {setting} changes it"
    if steps.on == 0 and not window.is_empty:
        none = f"{shown}: none of the {steps.steps} sampling steps begins"
        if span == EVERYWHERE:
            return [f"{none} in it, and every sample is the base model's; {advice}"]
        return [
            f"{none} in it and in the timesteps of the adapter's expert: every sample is the base model's"
        ]
    if steps.on == steps.steps and window.low > 0:
        return [
            f"{shown}: all of the {steps.steps} sampling steps begin in it, as if it were all timesteps;"
            f" {advice}"
        ]
    return []


def start_warnings(first: float, window: Window) -> list[str]:
    """That a window lacks the first sampling step, at timestep `first`, where alone a method acts."""
    if window.is_empty or window.contains(first):
        return []
    return [
        f"{_bounds(window)}: the first sampling step, t = {first:g}, is not in it, and every sample is the"
        " base model's: the method acts there alone; another tau= or tau_high= changes it"
    ]


def expert_notes(span: Window) -> list[str]:
    """That an adapter is of one of two experts."""
    if span == EVERYWHERE:
        return []
    is_high = span.high == TIMESTEPS
    where = f"t >= {span.low:g}" if is_high else f"t < {span.high:g}"
    return [f"the adapter is of the expert for {where} alone, and acts in no other step"]


def boundary_notes(tau_from: str, model: ModelConfig, schedule: Schedule) -> list[str]:
    """At which shift the boundary of `tau=auto` was probed, and at which a job samples; of flow matching."""
    if tau_from != "boundary" or not isinstance(schedule, FlowSchedule):
        return []
    probed = "an unknown shift" if model.boundary_shift is None else f"shift {model.boundary_shift:g}"
    return [f"tau=auto: the boundary was probed at {probed}; this job samples at shift {schedule.shift:g}"]


def recipe_notes(job: "JobPlan") -> list[str]:
    """The recipe of a job's sampling, what it comes to, and the settings on top; for a model with recipes."""
    settings, model = job.row_settings, job.model
    if not model.recipes:
        return []
    recipe = model.recipes[settings["recipe"]]
    schedule, scale = job.backbone.schedule, settings["guidance_scale"]
    steps = settings["steps"] if job.probe is None else job.probe.steps
    sampler = settings["sampler"] if job.probe is None else "ddim"
    parts = [f"{steps} steps of {sampler}"]
    parts += [f"shift {schedule.shift:.3g}"] if isinstance(schedule, FlowSchedule) else []
    parts += [f"spacing {spacing}"] if (spacing := settings["timestep_spacing"]) else []
    scales = scale if isinstance(scale, list) else [[0, scale]]
    parts += ["guidance " + ", ".join(f"{value:g}" + f" from t = {t:g}" * (t > 0) for t, value in scales)]
    embedded = getattr(job.backbone, "embedded_guidance", 0.0)
    parts += [f"guidance {embedded:g} as the network's input"] if embedded else []
    parts += ["dynamic guidance"] if settings["dynamic_guidance"] else []
    if settings["stg_scale"]:
        blocks = ",".join(map(str, settings["stg_blocks"]))
        parts.append(f"spatiotemporal guidance {settings['stg_scale']:g} in blocks [{blocks}]")
    parts += [f"guidance rescale {rescale:g}"] if (rescale := settings["guidance_rescale"]) else []
    parts += ["a negative prompt"] if settings["negative_prompt"] else ["no negative prompt"]
    parts += ["zeros for an empty prompt"] if settings["force_zeros_for_empty_prompt"] else []
    changed = [
        name
        for name in RECIPE_SETTINGS
        if settings[name] is not None and settings[name] != recipe.get(name, getattr(model, name))
    ]
    on_top = f"; not the recipe's: {', '.join(changed)}" if changed else ""
    return [f"recipe={settings['recipe']}: {', '.join(parts)}{on_top}"]


def _bounds(window: Window) -> str:
    return f"window [{window.low:g}, {window.high:g}]"
