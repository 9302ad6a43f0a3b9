"""What a window means in the steps of a sampling, in words."""

from motionexp.config.schema import ModelConfig
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule
from motionexp.diffusion.schedule import Window
from motionexp.diffusion.solvers import AdapterSteps


def window_warnings(steps: AdapterSteps, window: Window, schedule: Schedule) -> list[str]:
    """That none or all of the sampling steps lie in a window, for a user to know before a job runs."""
    shown = f"window [{window.low:g}, {window.high:g}]"
    setting = "shift=" if isinstance(schedule, FlowSchedule) else "timestep_spacing="
    advice = f"another tau=, steps= or {setting} changes it"
    if steps.on == 0 and not window.is_empty:
        return [
            f"{shown}: none of the {steps.steps} sampling steps begins in it, and every sample is the base"
            f" model's; {advice}"
        ]
    if steps.on == steps.steps and window.low > 0:
        return [
            f"{shown}: all of the {steps.steps} sampling steps begin in it, as if it were all timesteps;"
            f" {advice}"
        ]
    return []


def boundary_notes(tau_from: str, model: ModelConfig, schedule: Schedule) -> list[str]:
    """At which shift the boundary of `tau=auto` was probed, and at which a job samples; of flow matching."""
    if tau_from != "boundary" or not isinstance(schedule, FlowSchedule):
        return []
    probed = "an unknown shift" if model.boundary_shift is None else f"shift {model.boundary_shift:g}"
    return [f"tau=auto: the boundary was probed at {probed}; this job samples at shift {schedule.shift:g}"]
