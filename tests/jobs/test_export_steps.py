"""In which steps an exported adapter acts in a tool; and a model and a method that no tool reads.

The tools' readings of their settings are written down here anew, from their code as of 2026-11.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from diffusers import DPMSolverMultistepScheduler

from motionexp.cli import main
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule
from motionexp.diffusion.schedule import NoiseSchedule, Window
from motionexp.diffusion.window_in_steps import equal_parts, keyframes, share, step_weights
from motionexp.errors import InputError
from motionexp.methods.adapters import save_adapter, window_of
from motionexp.methods.lora import LoRA
from motionexp.methods.t_lora import TLoRA
from tests.support.tiny_families import FAMILIES


def percent_to_sigma(percent: float, schedule: Schedule) -> float:
    """comfy/model_sampling.py: ModelSamplingDiscreteFlow, and ModelSamplingDiscrete's timestep."""
    if isinstance(schedule, NoiseSchedule):
        return (1 - percent) * 999
    if percent <= 0:
        return 1.0
    return schedule.shift * (1 - percent) / (1 + (schedule.shift - 1) * (1 - percent))


def comfyui_strengths(frames: list[tuple[float, float]], schedule: Schedule, steps: int) -> list[float]:
    """comfy/hooks.py, HookKeyframeGroup: the last keyframe whose sigma is not below the step's."""
    strengths = []
    for t in schedule.timesteps(steps):
        sigma = t / 1000 if isinstance(schedule, FlowSchedule) else t
        acting = [weight for percent, weight in frames if percent_to_sigma(percent, schedule) >= sigma]
        strengths.append(acting[-1] if acting else frames[0][1])
    return strengths


def wan2gp_strengths(text: str, steps: int) -> list[float]:
    """shared/utils/loras_mutipliers.py, expand_one: equal parts of the steps."""
    values = [float(value) for value in text.split(",")]
    return [values[int(step * len(values) / steps)] for step in range(steps)]


SOFT = Window(300, 1000, ((300.0, 0.0), (700.0, 1.0)))


@pytest.mark.parametrize("window", [Window(700), Window(875), Window(300, 800), Window(999), Window(0), SOFT])
@pytest.mark.parametrize(
    "schedule",
    [FlowSchedule(shift=shift) for shift in (1, 3, 5, 7, 8, 12)]
    + [FlowSchedule(shift=3, spacing="unipc"), NoiseSchedule.from_config({"beta_schedule": "linear"})],
)
def test_comfyui_and_wan2gp_switch_in_the_same_steps(schedule: Schedule, window: Window) -> None:
    for steps in (1, 4, 10, 40, 50):
        weights = step_weights(window, schedule.timesteps(steps))
        frames = keyframes(window, schedule, schedule.timesteps(steps))
        assert comfyui_strengths(frames, schedule, steps) == weights
        parts = wan2gp_strengths(equal_parts(weights), steps)
        assert parts == pytest.approx(weights, rel=1e-5)


def test_the_share_of_a_bound_is_that_of_the_published_table() -> None:
    shifts = (1, 3, 5, 7, 8, 12)
    for t, digits, shares in (
        (700, 2, [0.30, 0.56, 0.68, 0.75, 0.77, 0.84]),
        (875, 3, [0.125, 0.300, 0.417, 0.500, 0.533, 0.632]),
    ):
        assert [round(share(t, FlowSchedule(shift=shift)), digits) for shift in shifts] == shares
    assert share(0, NoiseSchedule.from_config({"beta_schedule": "linear"})) == 1


def test_what_no_tool_reads_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = FAMILIES["latte"]
    backbone = family.kind.from_pretrained(family.save(tmp_path / "model"), name="tiny")
    method = LoRA(backbone, Window(700))
    adapter = save_adapter(tmp_path / "adapter", backbone, method)
    method.remove()
    source = (
        f"model=tiny_latte model.name=tiny model.path={tmp_path / 'model'} model.frames=4 model.height=16"
    )
    words = [*source.split(), "model.width=16", f"folder={tmp_path / 'new'}"]
    for form in ("comfyui", "kohya", "diffusers"):
        assert main(["export", *words, f"adapter={adapter}", f"format={form}"]) == 2
        assert re.search(rf"format={form}: .*LattePipeline.*peft", capsys.readouterr().err)
    assert main(["export", *words, f"adapter={adapter}", "format=peft", "shift=3"]) == 2
    assert "shift=3" in capsys.readouterr().err

    # The steps are those of the solver, which differ from DDIM's.
    solver = DPMSolverMultistepScheduler.from_pretrained(
        tmp_path / "model" / "scheduler", timestep_spacing="trailing"
    )
    solver.set_timesteps(7)
    sampling = ["sampler=dpmpp_2m", "timestep_spacing=trailing", "steps=7"]
    assert main(["export", *words, f"adapter={adapter}", "format=peft", *sampling]) == 0
    stored = json.loads((tmp_path / "new" / "window.json").read_text())
    assert stored["t"] == [float(t) for t in solver.timesteps]
    shutil.rmtree(tmp_path / "new")

    # A LoRA whose active rank depends on the timestep.
    adapter = save_adapter(tmp_path / "t_lora", backbone, TLoRA(backbone, Window(700)))
    assert main(["export", *words, f"adapter={adapter}", "format=peft"]) == 2
    assert "t_lora" in capsys.readouterr().err
    with pytest.raises(InputError, match="t_lora"):
        window_of(adapter)
