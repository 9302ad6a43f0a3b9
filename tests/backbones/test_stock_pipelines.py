"""Every family behind our interface against diffusers' pipeline: samples, frames, and exported adapters."""

from pathlib import Path
from typing import Any

import pytest
from diffusers import TextToVideoSDPipeline
from peft import PeftModel
from torch import Tensor
from torch.testing import assert_close

from motionexp.backbones import load_backbone
from motionexp.config.export import ExportConfig
from motionexp.config.schema import ModelConfig
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.jobs.export import export
from motionexp.methods.adapters import save_adapter
from motionexp.methods.lora import LoRA
from motionexp.methods.window_callback import networks_of, window_callback
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


def exported(family: Family, model: ModelConfig, adapter: Path) -> Path:
    """The adapter in the format that the pipeline reads, or else peft."""
    folder = adapter / "exported"
    form = "diffusers" if family.loads_lora else "peft"
    export(ExportConfig(str(adapter), form, folder, model, "ddim", None, None, model.steps, model.frames))
    return folder


def load(pipeline: Any, folder: Path) -> None:
    """As the card beside an export says."""
    files = sorted(folder.glob("*.safetensors"))
    if (folder / "adapter_config.json").exists():
        PeftModel.from_pretrained(networks_of(pipeline)[0], folder)
    elif len(files) == 1:
        pipeline.load_lora_weights(folder)
    else:
        high, low = files
        pipeline.load_lora_weights(folder, weight_name=high.name, adapter_name="motion")
        pipeline.load_lora_weights(
            folder, weight_name=low.name, adapter_name="motion", load_into_transformer_2=True
        )


def watched(family: Family, adapter: Path | Window, *, early: bool = False) -> dict[str, Any]:
    """The pipeline's arguments that load an adapter and keep its window."""
    callbacks = []

    def load_and_watch(pipeline: Any, folder: Path) -> None:
        load(pipeline, folder)
        callback = window_callback(adapter, pipeline if early else None)
        callbacks.append(lambda *arguments: callback(pipeline, *arguments))

    more: dict[str, Any] = {"load": load_and_watch}
    if family.pipeline is TextToVideoSDPipeline:
        return more | {"callback": lambda step, t, latents: callbacks[0](step, t, {}) and None}
    return more | {"callback_on_step_end": lambda _, *arguments: callbacks[0](*arguments)}


def test_an_exported_adapter_keeps_its_window_in_the_pipeline(
    family: Family, folder: Path | str, backbone: Backbone, tmp_path: Path
) -> None:
    if family is STOCK["unet3d-velocity"]:
        pytest.skip("the network is that of unet3d")
    settings, start = SamplerSettings(5, 2.0), noise((1, *family.sampled[-1]))
    method = LoRA(backbone, Window(0), rank=2, alpha=6.0)
    change(method, size=0.3)

    def sampled(low: float, high: float = 1000) -> Tensor:
        method.window = Window(low, high)
        return ours(family, backbone, start, settings, gate=method.set_active)

    everywhere, base = sampled(0), sampled(1000)
    times = backbone.schedule.timesteps(5)
    # In the second to the fourth of the five steps, and in the first three, the third at the very end of the
    # window. The timesteps are those of the video's size, which is set now.
    within = sampled(float(times[3]), (times[0] + times[1]) / 2)
    windowed = sampled(float(times[2]))
    save_adapter(tmp_path, backbone, method, RECIPE)
    inner = Window(float(times[3]), (times[0] + times[1]) / 2)
    method.remove()
    for differs in (everywhere, base, within):
        assert (differs - windowed).abs().max() > 0.01
    model = settings_of(family, backbone, folder, family.sampled[-1])
    adapter = exported(family, model, tmp_path)
    for expected, more in (
        (windowed, watched(family, adapter)),
        (within, watched(family, inner, early=True)),
    ):
        theirs = family.stock(folder, start, settings, adapter=adapter, **more)
        assert_close(theirs, expected, rtol=1e-4, atol=1e-4)
