"""What a window means in the steps of a job's sampling, in words."""

from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.jobs.plan import JobPlan


def window_notes(job: JobPlan) -> list[str]:
    """The number of steps with the adapter on and where it goes off, and the warnings; for a dry run."""
    return [str(job.adapter_steps), *window_warnings(job)]


def window_warnings(job: JobPlan) -> list[str]:
    """What a user should know of a window before the job runs: a line each."""
    steps, window = job.adapter_steps, job.sampling_window
    if job.probe is not None or job.window.is_empty:
        return []
    warnings, shown = [], f"window [{window.low:g}, {window.high:g}]"
    if steps.on == 0:
        warnings.append(
            f"{shown}: none of the {steps.steps} sampling steps begins in it, and every sample is the base"
            f" model's; {_other(job)}"
        )
    elif steps.on == steps.steps and window.low > 0:
        warnings.append(
            f"{shown}: all of the {steps.steps} sampling steps begin in it, as if it were all timesteps;"
            f" {_other(job)}"
        )
    rows, model = job.row_settings, job.model
    shift = job.backbone.schedule.shift if isinstance(job.backbone.schedule, FlowSchedule) else None
    if rows.get("tau_from") == "boundary" and shift is not None:
        probed = "an unknown shift" if model.boundary_shift is None else f"shift {model.boundary_shift:g}"
        warnings.append(f"tau=auto: the boundary was probed at {probed}; this job samples at shift {shift:g}")
    return warnings


def _other(job: JobPlan) -> str:
    flow = isinstance(job.backbone.schedule, FlowSchedule)
    return "another tau=, steps=" + (" or shift= changes it" if flow else " or timestep_spacing= changes it")
