"""Whether a probe's sampling steps fit its grid, told from the scheduler's file alone."""

from hydra.utils import get_object

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.config.schema import BLOCK, EDGES, JobConfig
from motionexp.diffusion.schedule import TIMESTEPS, NoiseSchedule
from motionexp.errors import InputError
from motionexp.hub import find_folder
from motionexp.probes.tree import step_blocks

MOST_NAMED = 6


def check_grid(cfg: JobConfig) -> None:
    """See that the model's schedule has as many of a probe's steps in each block; loads no weights.

    Nothing is said of a hub's model that is not here yet: its job fetches it, and then asks again. Nor of a
    backbone that is no pipeline, nor of flow matching, whose timesteps may depend on the size of videos:
    `step_blocks` asks when it is loaded.

    Raises:
        InputError: it has not; names the numbers of steps next to it that would do.
    """
    kind = get_object(cfg.model._target_.rpartition(".")[0])
    if not issubclass(kind, PipelineBackbone):
        return
    try:
        folder = find_folder(cfg.model.path, cfg.model.revision, local_files_only=True)
    except InputError:
        return
    schedule = kind.schedule_of(folder)
    if not isinstance(schedule, NoiseSchedule):
        return
    if _fits(schedule, cfg.probe_steps):
        return
    blocks = len(EDGES) - 1
    fitting = [steps for steps in range(blocks, TIMESTEPS + 1, blocks) if _fits(schedule, steps)]
    nearest = sorted(sorted(fitting, key=lambda steps: abs(steps - cfg.probe_steps))[:MOST_NAMED])
    raise InputError(
        f"probe_steps={cfg.probe_steps}: with the {schedule.timestep_spacing} timesteps of"
        f" model={cfg.model.name} not every {BLOCK} timesteps have as many steps;"
        f" {', '.join(map(str, nearest)) or 'no number'} would do"
    )


def _fits(schedule: NoiseSchedule, steps: int) -> bool:
    try:
        step_blocks(schedule, steps)
    except InputError:
        return False
    return True
