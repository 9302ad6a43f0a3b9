"""What lies beside an exported adapter: its card, and its window in the settings of other tools."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.stock_pipelines import StockSampling, callback_lines, loading_lines, stock_sampling
from motionexp.config.export import ExportConfig
from motionexp.config.sampling import beside_pipelines
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule
from motionexp.diffusion.schedule import Window
from motionexp.diffusion.solvers import AdapterSteps, solver_of
from motionexp.diffusion.window_in_steps import equal_parts, keyframes, span_of, step_weights
from motionexp.jobs.card_text import hub_ids
from motionexp.methods.adapters import StoredAdapter
from motionexp.methods.export_formats import WAN, WAN2GP, shift_node, task_of

WEIGHT_DIGITS = 4  # of the weight of a soft window in tools' settings


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
        cls,
        window: Window,
        schedule: Schedule,
        sampler: str,
        steps: int,
        backbone: PipelineBackbone,
        tensors: Collection[str],
    ) -> "WindowSettings":
        """The settings for so many steps of a sampler, of an adapter with tensors of these names."""
        span = span_of(backbone.spans, {name.partition(".")[0] for name in tensors})
        times = [float(t) for t in solver_of(schedule, sampler, steps).timesteps]
        boundary = getattr(backbone.network, "boundary", None)
        return cls(
            window,
            AdapterSteps.of(schedule, sampler, steps, window, span),
            schedule.shift if isinstance(schedule, FlowSchedule) else None,
            times,
            [round(weight, WEIGHT_DIGITS) for weight in step_weights(window, times)],
            [(start, round(weight, WEIGHT_DIGITS)) for start, weight in keyframes(window, schedule, times)],
            float(schedule.log_snr(window.low)),
            None if boundary is None else sum(t >= boundary for t in times),
        )

    def in_words(self) -> str:
        """How many steps have the adapter on, and where it goes off."""
        return f"the window {self.bounds}{self.at_shift}: {self.adapter_steps}"

    @property
    def at_shift(self) -> str:
        """The shift in words; empty: there is none."""
        return "" if self.shift is None else f", at shift {self.shift:g}"

    @property
    def bounds(self) -> str:
        """The window's ends."""
        return f"[{self.window.low:g}, {self.window.high:g}]"

    def of_expert(self, component: str) -> Sequence[float]:
        """The weights in the steps of one network of the pipeline; with two experts each makes a part."""
        if self.first_low is None:
            return self.weights
        is_low = component == "transformer_2"
        return self.weights[self.first_low :] if is_low else self.weights[: self.first_low]

    def wan2gp(self, component: str) -> str:
        """The multipliers of Wan2GP: one for each step, and with two experts a phase for each."""
        text = equal_parts(self.of_expert(component))
        if self.first_low is None:
            return text
        return f"0;{text or 0}" if component == "transformer_2" else f"{text or 0};0"

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

    def as_json(self, loras: Mapping[str, PurePath]) -> str:
        """All settings, for programs. `loras`: the files, by the pipeline's component."""
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
                str(file): {
                    "prompt_control": self.prompt_control(file.stem),
                    "wan2gp": self.wan2gp(component),
                    "weights": list(self.of_expert(component)),
                }
                for component, file in loras.items()
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
        inputs: dict[str, Any] = {"strength_mult": weight, "start_percent": start}
        if number > 2:
            inputs["prev_hook_kf"] = [str(number - 1), 0]
        nodes[str(number)] = {"class_type": "CreateHookKeyframe", "inputs": inputs}
    last = str(len(nodes))
    hooks = {"hooks": ["1", 0], "hook_kf": [last, 0]}
    nodes[str(len(nodes) + 1)] = {"class_type": "SetHookKeyframes", "inputs": hooks}
    return json.dumps(nodes, indent=2) + "\n"


def card(
    cfg: ExportConfig,
    stored: StoredAdapter,
    loras: Mapping[str, PurePath],
    settings: WindowSettings,
    backbone: PipelineBackbone,
    schedule: Schedule,
) -> str:
    """The text of README.md: what the adapter is, and how each tool applies it in its window.

    Args:
        cfg, stored: what is exported.
        loras: the files in the folder, by the pipeline's component.
        settings: the window in the steps of the sampling.
        backbone: may be on `meta`.
        schedule: of the sampling.
    """
    in_python = cfg.format in ("diffusers", "peft")
    about, recipe = stored.about, stored.about.get("recipe") or {}
    ids = hub_ids(cfg.model.path)
    source = f" ({' and '.join(ids)})" if ids else ""
    lines = [
        "---",
        *(["base_model:", *(f"- {repository}" for repository in ids)] if ids else []),
        "library_name: diffusers",
        f"tags: [lora, {task_of(backbone.pipeline)}, motion]",
        "---",
        f"# {cfg.folder.name}",
        "",
        f"A LoRA for {cfg.model.name}{source}: the motion of one video, learned by motionexp's method"
        f" {about['method']} with rank {about['settings']['rank']} and alpha {about['settings']['alpha']:g}.",
        *([f"Trained on: {'; '.join(recipe['captions'])}."] if recipe.get("captions") else []),
        "",
        f"It is to act in the window {settings.bounds} of timesteps alone (1000: pure noise): no tool reads"
        " this from the file.",
        settings.in_words()[0].upper() + settings.in_words()[1:] + ".",
        *(
            _in_python(cfg, loras, backbone, schedule)
            if in_python
            else _in_tools(cfg, loras, settings, backbone.pipeline)
        ),
    ]
    return "\n".join(lines) + "\n"


def _in_python(
    cfg: ExportConfig, loras: Mapping[str, PurePath], backbone: PipelineBackbone, schedule: Schedule
) -> list[str]:
    """A program for a pipeline; FOLDER is where the export lies, and the dots are captions and what else."""
    model, kind = cfg.model, backbone.pipeline
    before, callback = callback_lines(kind, '"FOLDER"', "pipeline")
    size = cfg.frames, model.height, model.width
    steps = cfg.sampling["steps"]
    stock = stock_sampling(backbone, schedule, cfg.sampling, steps, size, model.max_caption_tokens)
    title = "## diffusers" if cfg.format == "diffusers" else "## peft, with a pipeline of diffusers"
    if stock is None:  # a class of another repository
        title, stock = f"## peft, with {kind}", StockSampling((), {}, (), {}, _by_hand(cfg))
    program = [
        "import motionexp",
        *(f"from diffusers import {name}" for name in stock.imports),
        *["from peft import PeftModel"] * (cfg.format == "peft"),
        "",
        *loading_lines(cfg.format, loras, "FOLDER", "pipeline"),
        *stock.lines,
        *before,
        "pipeline(",
        "    ...,",
        *(f"    {name}={value}," for name, value in stock.arguments.items()),
        f"    {callback},",
        ")",
    ]
    loaded = " ".join(f"{name}={value}" for name, value in stock.options.items())
    return [
        "The callback reads t in every step: the window holds for other steps and other schedulers too.",
        "",
        title,
        "",
        f"`pipeline` is {_article(kind)} {kind} of the model{f', loaded with `{loaded}`' * bool(loaded)}, and"
        " FOLDER this folder:",
        "",
        *_indented(program),
        *(line for sentence in stock.differences for line in ("", f"{sentence}.")),
        *(["", backbone.decoding_note] if backbone.decoding_note else []),
    ]


def _article(noun: str) -> str:
    return "an" if noun[0] in "AEIO" else "a"


def _by_hand(cfg: ExportConfig) -> tuple[str, ...]:
    """What of the sampling no file carries, as sentences without their full stop."""
    words = " ".join(beside_pipelines(cfg.sampling))
    return (f"motionexp samples with `{words}`, which the LoRA does not carry",) if words else ()


def _in_tools(
    cfg: ExportConfig, loras: Mapping[str, PurePath], settings: WindowSettings, pipeline: str
) -> list[str]:
    frames = ", ".join(f"{weight:g} from {start:g}" for start, weight in settings.keyframes)
    lines = [
        "For another sampling, export it again with `recipe=`, `sampler=`, `steps=` or `shift=`.",
        *(f"{sentence}." for sentence in _by_hand(cfg)),
        "",
        "## ComfyUI",
        "",
        *(f"- `{file.stem}_hooks.json`: nodes for `{file}`." for file in loras.values()),
        f"- By hand: Create Hook LoRA (MO), Create Hook Keyframe with strength_mult {frames} (start_percent),"
        " Set Hook Keyframes, and its output into opt_hooks of Pair Cond Set Props.",
        *(f"- prompt-control: `{settings.prompt_control(file.stem)}`" for file in loras.values()),
    ]
    if node := shift_node(pipeline, settings.shift):
        lines.append(f"- Percents are of the model's shift: take {node}.")
    held = f"{settings.at_shift} with the timesteps of {cfg.sampling['sampler']}"
    if pipeline in WAN:
        lines += _in_wan_video_wrapper(loras, settings, held)
    if pipeline in WAN2GP[cfg.format]:
        values = [f"{file}: {settings.wan2gp(component)}" for component, file in loras.items()]
        lines += ["", "## Wan2GP", "", f"The multiplier at {len(settings.weights)} steps{held}:", ""]
        lines += _indented(values)
    return lines


def _in_wan_video_wrapper(loras: Mapping[str, PurePath], settings: WindowSettings, held: str) -> list[str]:
    steps, first = len(settings.weights), settings.first_low
    lines = [
        *("", "## WanVideoWrapper", ""),
        "The LoRA's strength as a list of floats, one for each step of its sampler, with merge_loras=false in"
        " the node that selects the LoRA: a list is an error otherwise.",
        f"The lists are of {steps} steps{held}.",
    ]
    if first is not None:
        lines.append(
            f"Of {steps} steps the sampler of the high-noise model makes the first {first}"
            f" (end_step={first}), and that of the low-noise model the other {steps - first}"
            f" (start_step={first}). Each counts its steps from 0."
        )
    values = [(file, list(settings.of_expert(component))) for component, file in loras.items()]
    return [*lines, "", *_indented([f"{file}: {json.dumps(weights)}" for file, weights in values])]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}".rstrip() for line in lines]
