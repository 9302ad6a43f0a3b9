"""Every family behind our interface against diffusers' pipeline: samples, frames, and exported adapters."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
from torch import Tensor
from torch.testing import assert_close

from motionexp.backbones import load_backbone
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.stock_pipelines import stock_sampling
from motionexp.config.export import ExportConfig
from motionexp.config.schema import ModelConfig
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.flow_matching import respaced
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.jobs.export import export
from motionexp.methods.adapters import save_adapter
from motionexp.methods.lora import LoRA
from tests.support.readme_program import run_readme
from tests.support.tiny_families import NEGATIVE, STOCK, Family, Latents, noise
from tests.support.training_runs import RECIPE, change


@pytest.fixture(scope="module", params=STOCK)
def family(request: pytest.FixtureRequest) -> Family:
    return STOCK[request.param]


@pytest.fixture(scope="module")
def backbone(folder: Path | str) -> Backbone:
    return load_backbone(folder, device="cpu", precision="fp32", fps=24)


def ours(family: Family, backbone: Backbone, start: Tensor, settings: SamplerSettings, **more: Any) -> Tensor:
    if backbone.any_size:
        backbone.frames, backbone.height, backbone.width = family.video_of(start)
    captions = backbone.embed([family.caption]), backbone.embed([NEGATIVE])
    return sample_latents(backbone, *captions, start, settings, **more)


@pytest.mark.parametrize(("steps", "guidance_scale"), [(2, 1.0), (7, 3.0)])
def test_samples_equal_the_pipelines(
    family: Family, folder: Path | str, backbone: Backbone, steps: int, guidance_scale: float
) -> None:
    settings = SamplerSettings(steps, guidance_scale)
    for latents in family.sampled:
        start = noise((1, *latents))
        expected = family.stock(folder, start, settings)
        assert_close(ours(family, backbone, start, settings), expected, rtol=1e-4, atol=1e-4)
    # The caption matters, else the comparison would show little.
    assert (family.stock(folder, start, settings, caption="dogs 7") - expected).abs().max() > 1e-3


def test_frames_equal_the_pipelines(family: Family, folder: Path | str, backbone: Backbone) -> None:
    settings, start = SamplerSettings(4, 2.0), noise((1, *family.sampled[-1]))
    frames = backbone.decode(ours(family, backbone, start, settings)) / 255
    expected = family.stock(folder, start, settings, output="np")
    assert expected.shape == (1, *family.video_of(start), 3)
    # Half a level of rounding, and a little for the latents.
    assert (frames - expected).abs().max() < 0.52 / 255
    assert expected.std() > 0.03


def settings_of(family: Family, backbone: Backbone, folder: Path | str, latents: Latents) -> ModelConfig:
    """What a model's file in `conf/model/` has of it."""
    kind = type(backbone)
    frames, height, width = family.video_of(noise((1, *latents)))
    return ModelConfig(
        _target_=f"{kind.__module__}.{kind.__name__}.from_pretrained",
        name=backbone.name,
        path=str(folder),
        frames=frames,
        frame_range=[1, 1000],
        height=height if backbone.any_size else backbone.height,
        width=width if backbone.any_size else backbone.width,
        fps=24,
        max_caption_tokens=backbone.max_caption_tokens,
        steps=5,
    )


def exported(
    family: Family, model: ModelConfig, adapter: Path, settings: SamplerSettings, form: str = ""
) -> Path:
    """The adapter in the format that the pipeline reads, or else peft."""
    form = form or ("diffusers" if family.loads_lora else "peft")
    folder = adapter / form
    sampling = {"sampler": "ddim", "shift": None, "timestep_spacing": None, "steps": settings.steps}
    sampling |= {"guidance_scale": settings.guidance_scale, "negative_prompt": NEGATIVE}
    export(ExportConfig(str(adapter), form, folder, model, model.frames, sampling))
    return folder


def test_an_exported_adapter_keeps_its_window_in_the_pipeline(
    family: Family, folder: Path | str, backbone: Backbone, tmp_path: Path
) -> None:
    if family is STOCK["unet3d-velocity"]:
        pytest.skip("the network is that of unet3d")
    settings, start = SamplerSettings(5, 2.0), noise((1, *family.sampled[-1]))
    method = LoRA(backbone, Window(0), rank=2, alpha=6.0)
    change(method, size=0.3)

    def gate(t: float | None) -> bool:
        method.scale = 1.0 if t is None else method.window.weight(t)
        return method.set_active(t)

    def sampled(window: Window) -> Tensor:
        method.window = window
        return ours(family, backbone, start, settings, gate=gate)

    everywhere, base = sampled(Window(0)), sampled(Window(1000))
    times = backbone.schedule.timesteps(5)
    # In the second to the fourth of the five steps, and in the first three, the third at the very end of the
    # window. The timesteps are those of the video's size, which is set now.
    inner = Window(float(times[3]), (times[0] + times[1]) / 2)
    windows = [inner, Window(float(times[2]))]
    if family is STOCK["wan"]:
        windows.append(Window(float(times[3]), 1000, ((float(times[3]), 0.5), (1000, 1.0))))
    within, windowed, *_ = expected = [sampled(window) for window in windows]
    for differs in (everywhere, base, within):
        assert (differs - windowed).abs().max() > 0.01
    folders = []
    for number, window in enumerate(windows):
        method.window = window
        save_adapter(tmp_path / str(number), backbone, method, RECIPE)
        folders.append(tmp_path / str(number))
    method.remove()
    model = settings_of(family, backbone, folder, family.sampled[-1])
    exports = [exported(family, model, adapter, settings) for adapter in folders]
    for files, latents in zip(exports, expected, strict=True):
        program = partial(run_readme, files)
        assert_close(family.stock(folder, start, settings, run=program), latents, rtol=1e-4, atol=1e-4)
    if family in (STOCK["wan"], STOCK["wan-experts"], STOCK["latte"]):
        # A window that ends at 1000 needs no pipeline, and holds in a second call.
        program = partial(run_readme, exports[1], is_alone=True)
        assert_close(family.stock(folder, start, settings, run=program), windowed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["wan-experts"], indirect=True)
@pytest.mark.parametrize("form", ["diffusers", "peft"])
@pytest.mark.parametrize("window", [Window(900), Window(300, 800)])
def test_an_adapter_of_one_expert_is_loaded_into_it(
    family: Family, folder: Path | str, backbone: Backbone, form: str, window: Window, tmp_path: Path
) -> None:
    settings, start = SamplerSettings(4, 1.0), noise((1, *family.sampled[0]))
    method = LoRA(backbone, window, rank=2, alpha=6.0)
    change(method, size=0.3)
    expected = ours(family, backbone, start, settings, gate=method.set_active)
    save_adapter(tmp_path, backbone, method, RECIPE)
    method.remove()
    assert (ours(family, backbone, start, settings) - expected).abs().max() > 0.01
    model = settings_of(family, backbone, folder, family.sampled[0])
    files = exported(family, model, tmp_path, settings, form)
    assert len([*files.glob("**/*.safetensors")]) == 1
    sampled = family.stock(folder, start, settings, run=partial(run_readme, files))
    assert_close(sampled, expected, rtol=1e-4, atol=1e-4)


SAMPLINGS = {
    "unipc": ("wan", {"sampler": "unipc", "shift": 8.0, "guidance_scale": 3.0}),
    "Euler's steps of UniPC": ("wan", {"sampler": "euler", "shift": 8.0, "guidance_scale": 3.0}),
    "experts": ("wan-experts", {"sampler": "unipc", "shift": 12.0, "guidance_scale": "of experts"}),
    "embedded guidance": ("hunyuan", {"sampler": "ddim", "shift": 5.0, "guidance_scale": 1.0}),
    "a fixed shift": ("ltx", {"sampler": "euler", "shift": 3.0, "guidance_scale": 2.0}),
    "mochi": ("mochi", {"sampler": "ddim", "shift": 1.0, "guidance_scale": 2.0}),
    "dynamic guidance": (
        "cogvideox",
        {
            **{"sampler": "ddim", "timestep_spacing": "leading", "guidance_scale": 3.0},
            "dynamic_guidance": True,
        },
    ),
    "dpm": ("latte", {"sampler": "dpmpp_2m", "timestep_spacing": "trailing", "guidance_scale": 3.0}),
    "leading": ("animatediff", {"sampler": "ddim", "timestep_spacing": "leading", "guidance_scale": 3.0}),
    "euler of DDPM": ("unet3d", {"sampler": "euler", "timestep_spacing": "linspace", "guidance_scale": 3.0}),
}
"""{what: family, settings of a job}"""


@pytest.mark.parametrize(
    ("family", "job"),
    [pytest.param(*case, id=name) for name, case in SAMPLINGS.items()],
    indirect=["family"],
)
def test_a_pipeline_samples_as_the_lines_of_a_card_say(
    family: Family,
    folder: Path | str,
    backbone: PipelineBackbone,
    job: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = noise((1, *family.sampled[-1]))
    scale = job["guidance_scale"]
    if scale == "of experts":
        scale = [[0, 2.0], [backbone.network.boundary, 4.0]]
    settings = {"negative_prompt": NEGATIVE, **job, "guidance_scale": scale}
    size = family.video_of(start)
    if backbone.any_size:
        backbone.frames, backbone.height, backbone.width = size
    schedule = respaced(backbone.schedule, settings.get("shift"), settings.get("timestep_spacing"))
    program = stock_sampling(backbone, schedule, settings, 5, size, backbone.max_caption_tokens)
    assert program is not None
    assert program.differences == ()

    def run(pipeline: Any, arguments: Mapping[str, Any]) -> Any:
        names = {name: getattr(diffusers, name) for name in program.imports} | {"pipeline": pipeline}
        exec("\n".join(program.lines), names)
        inputs = {name: arguments[name] for name in ("prompt", "latents", "output_type")} | family.arguments
        return pipeline(**inputs | {name: eval(value) for name, value in program.arguments.items()})

    scales = tuple(tuple(pair) for pair in scale) if isinstance(scale, list) else scale
    more = {"sampler": job["sampler"], "dynamic_guidance": job.get("dynamic_guidance", False)}
    monkeypatch.setattr(backbone, "schedule", schedule)
    expected = ours(family, backbone, start, SamplerSettings(5, scales, **more))
    # Not the scheduler of first order that other tests take.
    sampled = family.stock(folder, start, SamplerSettings(5), run=run, scheduler=lambda old: old)
    assert_close(sampled, expected, rtol=1e-4, atol=1e-4)
