"""Lines of Python for diffusers' pipelines: they load an adapter, keep its window, and sample as a job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import PurePath
from typing import Any

import diffusers

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.config.sampling import beside_pipelines, is_guided
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule
from motionexp.diffusion.schedule import NoiseSchedule

# Which have `callback=` and no `callback_on_step_end=`. The second is of Show-1's repository (showlab/Show-1,
# commit b01c80d, showone/pipelines/pipeline_t2v_base_pixel.py).
OLDER_CALLBACK = ("TextToVideoSDPipeline", "TextToVideoIFPipeline")
EULER_STEPS = ("ddim", "euler")  # which are one with flow matching
NOISY_DPM = (
    "motionexp's DPM++ 2M adds no noise; the scheduler of this program, the one of diffusers for this model,"
    " adds noise in each step"
)


@dataclass(frozen=True)
class StockSampling:
    """How a pipeline of diffusers samples as a job does.

    Attributes:
        imports: names of diffusers that the lines need, beside the pipeline's class.
        options: of the pipeline's `from_pretrained`, as Python.
        lines: that set the scheduler of `pipeline`.
        arguments: of the pipeline's call, {name: Python}, beside the captions.
        differences: one sentence for each part of the job's sampling that the pipeline does not have.
    """

    imports: tuple[str, ...]
    options: Mapping[str, str]
    lines: tuple[str, ...]
    arguments: Mapping[str, str]
    differences: tuple[str, ...]


def callback_lines(pipeline: str, adapter: str, variable: str) -> tuple[list[str], str]:
    """The lines before the call of a pipeline, and the argument of the call, that keep an adapter's window.

    Args:
        pipeline: its class's name.
        adapter: the folder or file, as Python.
        variable: the pipeline's name in the program.
    """
    callback = f"motionexp.window_callback({adapter}, {variable})"
    if pipeline in OLDER_CALLBACK:
        argument = f"callback=lambda step, t, latents: keep_window({variable}, step, t, {{}})"
        return [f"keep_window = {callback}"], argument
    return [], f"callback_on_step_end={callback}"


def loading_lines(form: str, loras: Mapping[str, PurePath], folder: str, variable: str) -> list[str]:
    """The lines that load an export into a pipeline.

    Args:
        form: `diffusers` or `peft`.
        loras: the file of each component of the pipeline, relative to the folder.
        folder: of the export.
        variable: the pipeline's name in the program.
    """
    lines = []
    for component, file in loras.items():
        if form == "peft":
            place = "/".join((folder, *file.parts[:-1]))
            lines.append(
                f'PeftModel.from_pretrained({variable}.{component}, "{place}")  # changes it in place'
            )
        elif component in ("transformer", "unet") and file.name.startswith("pytorch_lora_weights"):
            lines.append(f'{variable}.load_lora_weights("{folder}")')
        else:
            second = ", load_into_transformer_2=True" * (component == "transformer_2")
            lines.append(
                f'{variable}.load_lora_weights("{folder}", weight_name="{file.name}", adapter_name="motion"'
                f"{second})"
            )
    return lines


def stock_sampling(
    backbone: PipelineBackbone,
    schedule: Schedule,
    settings: Mapping[str, Any],
    steps: int,
    size: tuple[int, int, int],
    caption_tokens: int,
) -> StockSampling | None:
    """How the pipeline of a backbone's class samples as a job does; None: diffusers has no such class.

    Args:
        backbone: may be on `meta`.
        schedule: of the job.
        settings: of the job, by their names.
        steps: of the sampling.
        size: frames, height and width of a video.
        caption_tokens: of the longest caption.
    """
    kind = getattr(diffusers, backbone.pipeline, None)
    if kind is None:
        return None
    parameters = signature(kind.__call__).parameters
    frames, height, width = size
    arguments: dict[str, Any] = {"num_inference_steps": steps}
    guidance, differences = _guidance(backbone, settings, parameters)
    arguments |= guidance
    arguments["video_length" if "video_length" in parameters else "num_frames"] = frames
    arguments |= {"height": height, "width": width}
    if "frame_rate" in parameters:
        arguments["frame_rate"] = backbone.fps
    if "max_sequence_length" in parameters:
        arguments["max_sequence_length"] = caption_tokens
    if settings.get("eta") and "eta" in parameters:
        arguments["eta"] = settings["eta"]
    scheduler, imports, difference = _scheduler(backbone, schedule, str(settings["sampler"]), steps)
    zeros = "force_zeros_for_empty_prompt"
    options = {zeros: str(bool(settings.get(zeros)))} if zeros in signature(kind.__init__).parameters else {}
    rest = {name: value for name, value in settings.items() if name not in (*options, *arguments)}
    if words := beside_pipelines(rest):
        differences.append(f"motionexp samples with `{' '.join(words)}`, which this program leaves out")
    return StockSampling(
        tuple(imports),
        options,
        tuple(scheduler),
        {name: repr(value) for name, value in arguments.items()},
        (*differences, *([difference] if difference else [])),
    )


def _guidance(
    backbone: PipelineBackbone, settings: Mapping[str, Any], parameters: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The arguments of guidance, and what they lack."""
    scale, differences = settings["guidance_scale"], list[str]()
    # HunyuanVideo's guidance_scale is an input of its network, and 6 here as there.
    name = "true_cfg_scale" if "true_cfg_scale" in parameters else "guidance_scale"
    arguments: dict[str, Any] = {}
    if not isinstance(scale, list):
        arguments[name] = scale
    elif len(scale) == 1:
        arguments[name] = scale[0][1]
    elif len(scale) == 2 and scale[1][0] == getattr(backbone.network, "boundary", None):
        arguments |= {name: scale[1][1], "guidance_scale_2": scale[0][1]}
    else:
        arguments[name] = scale[-1][1]
        differences.append(
            f"motionexp's guidance changes with t, guidance_scale={scale}: the pipeline has one"
        )
    if is_guided(scale) and "negative_prompt" in parameters:
        arguments["negative_prompt"] = str(settings.get("negative_prompt") or "")
    if settings.get("dynamic_guidance"):
        if "use_dynamic_cfg" in parameters:
            arguments["use_dynamic_cfg"] = True
        else:
            differences.append(
                "motionexp samples with dynamic_guidance=true, which the pipeline does not have"
            )
    if (
        settings.get("guidance_rescale")
        and "guidance_rescale" in parameters
        and not settings.get("stg_scale")
    ):
        arguments["guidance_rescale"] = settings["guidance_rescale"]
    return arguments, differences


def _scheduler(
    backbone: PipelineBackbone, schedule: Schedule, sampler: str, steps: int
) -> tuple[list[str], list[str], str]:
    """The lines that set the scheduler, the classes that they need, and in what the steps differ."""
    if isinstance(schedule, FlowSchedule):
        name, settings, difference = _flow_scheduler(backbone, schedule, sampler, steps)
    else:
        name, settings, difference = _discrete_scheduler(backbone, schedule, sampler)
    if not name:
        return [], [], difference
    arguments = ", ".join(["pipeline.scheduler.config", *settings])
    return [f"pipeline.scheduler = {name}.from_config({arguments})"], [name], difference


def _flow_scheduler(
    backbone: PipelineBackbone, schedule: FlowSchedule, sampler: str, steps: int
) -> tuple[str, Sequence[str], str]:
    usual: Any = backbone.schedule
    spaced = (
        f"motionexp's sigmas are spaced as timestep_spacing={schedule.spacing}, which this program's are not"
    )
    if usual.whole_labels:  # UniPC's, and the pipeline leaves the sigmas to the scheduler
        shift = f"flow_shift={schedule.shift:g}"
        if sampler == "dpmpp_2m":
            return "DPMSolverMultistepScheduler", [shift], spaced if schedule.spacing != "dpm" else ""
        # UniPC's predictor of first order is Euler's step.
        first = ["solver_order=1", f"disable_corrector=list(range({steps}))"] * (sampler in EULER_STEPS)
        difference = spaced if schedule.spacing != "unipc" else ""
        return "UniPCMultistepScheduler", [shift, *first], difference
    difference = ""
    if sampler not in EULER_STEPS:
        difference = (
            f"motionexp samples with sampler={sampler}; the pipeline passes sigmas to Euler's steps alone"
        )
    elif schedule.spacing != usual.spacing:
        difference = spaced
    if schedule.dynamic_shift is not None:  # by the size of the video, in the pipeline too
        return "", [], difference
    fixed = ["use_dynamic_shifting=False"] * (usual.dynamic_shift is not None)
    return "FlowMatchEulerDiscreteScheduler", [f"shift={schedule.shift:g}", *fixed], difference


def _discrete_scheduler(
    backbone: PipelineBackbone, schedule: NoiseSchedule, sampler: str
) -> tuple[str, Sequence[str], str]:
    replaced = {name: value for name, value in backbone.scheduler.items() if name != "_class_name"}
    replaced["timestep_spacing"] = schedule.timestep_spacing
    settings = [f"{name}={value!r}" for name, value in replaced.items()]
    if backbone.pipeline.startswith("CogVideoX"):
        if sampler == "dpmpp_2m":
            return "CogVideoXDPMScheduler", settings, NOISY_DPM
        difference = (
            "" if sampler == "ddim" else f"motionexp samples with sampler={sampler}; this program with DDIM"
        )
        return "CogVideoXDDIMScheduler", settings, difference
    names = {
        "ddim": "DDIMScheduler",
        "dpmpp_2m": "DPMSolverMultistepScheduler",
        "unipc": "UniPCMultistepScheduler",
        "euler": "EulerDiscreteScheduler",
    }
    return names[sampler], settings, ""
