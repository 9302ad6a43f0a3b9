"""Every family behind our interface against diffusers' pipeline: samples, frames, and adapter files."""

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import MochiPipeline, TextToVideoSDPipeline
from safetensors import safe_open
from torch import Tensor
from torch.testing import assert_close

from motionexp.backbones import load_backbone
from motionexp.backbones.wan import WanExpertsBackbone
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.methods.adapters import save_adapter
from motionexp.methods.lora import LoRA
from tests.support.python_page import WITH_LOADER, WITH_PEFT, functions
from tests.support.tiny_families import NEGATIVE, STOCK, Family, noise
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


def callback(family: Family, names: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's argument that calls the page's `keep_window` after each step."""

    def keep_window(pipeline: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        names["pipeline"] = pipeline
        return names["keep_window"](pipeline, step, t, tensors)

    if family.pipeline is TextToVideoSDPipeline:
        return {"callback": lambda step, t, latents: keep_window(names["pipeline"], step, t, {})}
    return {"callback_on_step_end": keep_window}


def test_an_adapter_and_its_window_fit_the_pipeline(
    family: Family, folder: Path | str, backbone: Backbone, tmp_path: Path
) -> None:
    if family is STOCK["unet3d-velocity"]:
        pytest.skip("the network is that of unet3d")
    settings, start = SamplerSettings(5, 2.0), noise((1, *family.sampled[-1]))
    # The experts' tensors are loaded one expert at a time, without the file's alpha, which is then the rank.
    alpha = 2.0 if family.kind is WanExpertsBackbone else 6.0
    method = LoRA(backbone, Window(0), rank=2, alpha=alpha)
    change(method, size=0.3)

    def sampled(low: float) -> Tensor:
        method.window = Window(low)
        return ours(family, backbone, start, settings, gate=method.set_active)

    everywhere, base = sampled(0), sampled(1000)
    # On in three of the five steps. The timesteps are those of the video's size, which is set now.
    windowed = sampled(sum(backbone.schedule.timesteps(5)[2:4]) / 2)
    save_adapter(tmp_path, backbone, method, RECIPE)
    method.remove()
    assert (everywhere - windowed).abs().max() > 0.01
    assert (base - windowed).abs().max() > 0.01

    # The code of docs/python.md, with the changes that it names.
    blocks = [WITH_LOADER] if family.loads_lora else [WITH_LOADER, WITH_PEFT]
    if family.pipeline is MochiPipeline:
        blocks = [WITH_LOADER.replace("following[0]", "1000 - following[0]")]
    names = functions(*blocks)

    def load(pipeline: Any, adapter: Path) -> None:
        names["pipeline"] = pipeline
        network = getattr(pipeline, backbone.component)
        with safe_open(adapter / "adapter.safetensors", "pt") as file:
            names["layers"] = names["load_lora"](network, file, backbone.key_prefix)

    with safe_open(tmp_path / "adapter.safetensors", "pt") as file:
        names["window"] = json.loads(file.metadata()["motionexp"])["window"]
    more = {"adapter": tmp_path, "load": None if family.loads_lora else load, **callback(family, names)}
    assert_close(family.stock(folder, start, settings, **more), windowed, rtol=1e-4, atol=1e-4)
