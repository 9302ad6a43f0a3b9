"""What lies beside an exported adapter: its card, and its window in the settings of other tools."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.config.export import ExportConfig
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule
from motionexp.diffusion.schedule import Window
from motionexp.diffusion.solvers import AdapterSteps, solver_of
from motionexp.diffusion.window_in_steps import equal_parts, keyframes, step_weights
from motionexp.methods.adapters import StoredAdapter
from motionexp.methods.export_formats import task_of


@dataclass(frozen=True)
class WindowSettings:
    """A window in the steps of one sampling.

    Attributes:
        adapter_steps: which of the steps have the adapter on.
        shift: of flow matching; None: the schedule is discrete, without a shift.
        times: t of each step.
        weights: of the adapter in each step.
        keyframes: (share of ComfyUI's schedule, weight from there on).
        log_snr: at the window's lower end, in nats.
        first_low: how many steps the first of two experts makes; None: there is one network.
    """

    window: Window
    adapter_steps: AdapterSteps
    shift: float | None
    times: Sequence[float]
    weights: Sequence[float]
    keyframes: Sequence[tuple[float, float]]
    log_snr: float
    first_low: int | None

    @classmethod
    def of(
        cls, window: Window, schedule: Schedule, sampler: str, steps: int, backbone: PipelineBackbone
    ) -> "WindowSettings":
        """The settings for so many steps of a sampler."""
        times = [float(t) for t in solver_of(schedule, sampler, steps).timesteps]
        boundary = getattr(backbone.network, "boundary", None)
        return cls(
            window,
            AdapterSteps.of(schedule, sampler, steps, window),
            schedule.shift if isinstance(schedule, FlowSchedule) else None,
            times,
            step_weights(window, times),
            keyframes(window, schedule, times),
            float(schedule.log_snr(window.low)),
            None if boundary is None else sum(t >= boundary for t in times),
        )

    def in_words(self) -> str:
        """How many steps have the adapter on, and where it goes off."""
        at = "" if self.shift is None else f", at shift {self.shift:g}"
        return f"the window {self.bounds}{at}: {self.adapter_steps}"

    @property
    def bounds(self) -> str:
        """The window's ends."""
        return f"[{self.window.low:g}, {self.window.high:g}]"

    def wan2gp(self, *, is_low: bool) -> str:
        """The multipliers of Wan2GP: one for each step, and with two experts a phase for each."""
        if self.first_low is None:
            return equal_parts(self.weights)
        high, low = self.weights[: self.first_low], self.weights[self.first_low :]
        return f"0;{equal_parts(low) or 0}" if is_low else f"{equal_parts(high) or 0};0"

    def prompt_control(self, name: str) -> str:
        """The text of prompt-control for a LoRA's name."""
        lora = f"<lora:{name}:{{:g}}>"
        frames = [(start, weight) for start, weight in self.keyframes if start > 0 or weight > 0]
        ends = [start for start, _ in frames[1:]] + [1.0]
        parts = [
            (start, end, weight) for (start, weight), end in zip(frames, ends, strict=True) if weight > 0
        ]
        return " ".join(
            lora.format(weight)
            if (start, end) == (0, 1)
            else f"[{lora.format(weight)}::{end:g}]"
            if start == 0
            else f"[{lora.format(weight)}:{start:g},{end:g}]"
            for start, end, weight in parts
        )

    def as_json(self, loras: Sequence[Path]) -> str:
        """All settings, for programs."""
        window = {"low": self.window.low, "high": self.window.high, "knots": [*map(list, self.window.knots)]}
        content = {
            "window": window,
            "shift": self.shift,
            "steps": len(self.times),
            "t": [round(t, 3) for t in self.times],
            "weights": list(self.weights),
            "comfyui_keyframes": [
                {"start_percent": start, "strength_mult": at} for start, at in self.keyframes
            ],
            "files": {
                file.name if file.parent == loras[0].parent else f"{file.parent.name}/{file.name}": {
                    "prompt_control": self.prompt_control(file.stem),
                    "wan2gp": self.wan2gp(is_low="low_noise" in str(file)),
                }
                for file in loras
            },
        }
        return json.dumps(content, indent=2) + "\n"


def workflow(file: str, settings: WindowSettings) -> str:
    """Nodes of a ComfyUI workflow, in its API's form: a hook with the LoRA and its keyframes.

    The output of the last node goes into `opt_hooks` of the node "Pair Cond Set Props".
    """
    nodes: dict[str, Any] = {
        "1": {"class_type": "CreateHookLoraModelOnly", "inputs": {"lora_name": file, "strength_model": 1.0}}
    }
    for number, (start, weight) in enumerate(settings.keyframes, start=2):
        inputs: dict[str, Any] = {"strength_mult": round(weight, 2), "start_percent": start}
        if number > 2:
            inputs["prev_hook_kf"] = [str(number - 1), 0]
        nodes[str(number)] = {"class_type": "CreateHookKeyframe", "inputs": inputs}
    last = str(len(nodes))
    hooks = {"hooks": ["1", 0], "hook_kf": [last, 0]}
    nodes[str(len(nodes) + 1)] = {"class_type": "SetHookKeyframes", "inputs": hooks}
    return json.dumps(nodes, indent=2) + "\n"


def card(
    cfg: ExportConfig, stored: StoredAdapter, loras: Sequence[Path], settings: WindowSettings, pipeline: str
) -> str:
    """The text of README.md: what the adapter is, and how each tool applies it in its window.

    `pipeline` is the class of the model's pipeline.
    """
    about, recipe = stored.about, stored.about.get("recipe") or {}
    base = about.get("source") or cfg.model.path
    lines = [
        "---",
        f"base_model: {base}",
        "library_name: diffusers",
        f"tags: [lora, {task_of(pipeline)}, motion]",
        "---",
        f"# {cfg.folder.name}",
        "",
        f"A LoRA for {cfg.model.name} ({base}): the motion of one video, learned by motionexp's method"
        f" {about['method']} with rank {about['settings']['rank']} and alpha {about['settings']['alpha']:g}.",
        *([f"Trained on: {'; '.join(recipe['captions'])}."] if recipe.get("captions") else []),
        "",
        f"It is to act in the window {settings.bounds} of timesteps alone (1000: pure noise): no tool reads"
        " this from the file.",
        settings.in_words()[0].upper() + settings.in_words()[1:] + ".",
        "For another sampling, export it again with `recipe=`, `sampler=`, `steps=` or `shift=`.",
        *_guidance(cfg),
        "",
        *_usage(cfg, loras, settings),
    ]
    return "\n".join(lines) + "\n"


def _guidance(cfg: ExportConfig) -> list[str]:
    words = " ".join(cfg.guidance)
    return [f"motionexp samples with `{words}`, which the LoRA does not carry."] if words else []


def _usage(cfg: ExportConfig, loras: Sequence[Path], settings: WindowSettings) -> list[str]:
    if cfg.format == "diffusers":
        return ["## diffusers", "", *_indented(_in_diffusers(cfg, loras))]
    if cfg.format == "peft":
        folders = [file.parent.name if len(loras) > 1 else "FOLDER" for file in loras]
        networks = ["transformer", "transformer_2"] if len(loras) > 1 else ["transformer"]
        load = [
            f'PeftModel.from_pretrained(pipe.{network}, "{folder}")  # changes it in place'
            for network, folder in zip(networks, folders, strict=True)
        ]
        call = 'pipe(..., callback_on_step_end=motionexp.window_callback("FOLDER"))'
        return [
            "## peft, with a pipeline of diffusers",
            "",
            *_indented(["from peft import PeftModel", *load, call]),
        ]
    frames = ", ".join(f"{weight:g} from {start:g}" for start, weight in settings.keyframes)
    lines = [
        "## ComfyUI",
        "",
        *(f"- `{file.stem}_hooks.json`: nodes for `{file.name}`." for file in loras),
        f"- By hand: Create Hook LoRA (MO), Create Hook Keyframe with strength_mult {frames} (start_percent),"
        " Set Hook Keyframes, and its output into opt_hooks of Pair Cond Set Props.",
        *(f"- prompt-control: `{settings.prompt_control(file.stem)}`" for file in loras),
    ]
    if settings.shift is not None:
        lines.append(
            f"- The model's shift has to be {settings.shift:g} (ModelSamplingSD3): percents are of it."
        )
    if cfg.model._target_.startswith("motionexp.backbones.wan."):
        lines += [
            *("", "## WanVideoWrapper", ""),
            f"The LoRA's strength as a list, one for each of {len(settings.weights)} steps:",
            *("", *_indented([json.dumps(list(settings.weights))])),
        ]
    if "Mochi" not in cfg.model._target_:
        values = [f"{file.name}: {settings.wan2gp(is_low='low_noise' in file.name)}" for file in loras]
        lines += ["", "## Wan2GP", "", f"The multiplier at {len(settings.weights)} steps:", ""]
        lines += _indented(values)
    return lines


def _in_diffusers(cfg: ExportConfig, loras: Sequence[Path]) -> list[str]:
    if loras[0].parent == cfg.folder and len(loras) == 1 and loras[0].name.startswith("pytorch"):
        load = ['pipe.load_lora_weights("FOLDER")']
    else:
        load = [
            f'pipe.load_lora_weights("FOLDER", weight_name="{file.name}", adapter_name="motion"'
            f"{', load_into_transformer_2=True' * ('low_noise' in file.name)})"
            for file in loras
        ]
    return [*load, 'pipe(..., callback_on_step_end=motionexp.window_callback("FOLDER"))']


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
