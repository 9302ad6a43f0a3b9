"""Tuning of the 3D U-Net: dropout stays off, and other tools read the file."""

import json

import pytest
import torch
from diffusers import TextToVideoSDPipeline
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file

from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.methods.adapters import save_adapter
from motionexp.methods.training import Example, fit
from tests.support.tiny_models import save_tiny_unet3d
from tests.support.training_runs import RECIPE, SETTINGS, attach

FRAMES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_unet3d(tmp_path_factory.mktemp("tiny_unet3d"))


@pytest.fixture
def unet(folder):
    return UNet3DBackbone.from_pretrained(folder, name="tiny")


def drawn(seed=1):
    return torch.randn(1, 4, FRAMES, 4, 4, generator=torch.Generator().manual_seed(seed))


def sampled(backbone, gate=None):
    settings = SamplerSettings(steps=5, guidance_scale=3.0)  # t = 801, 601, 401, 201, 1
    captions = backbone.embed(["a dog runs"]), backbone.embed([""])
    return sample_latents(backbone, *captions, drawn(), settings, gate=gate)


def fitted(backbone, name, folder):
    method = attach(name, backbone, Window(0))
    examples = [Example(drawn(seed=2), backbone.embed(["a cat runs"]), "video")]
    result = fit(backbone, method, examples, SETTINGS, folder, progress=False)
    return method, result


def test_every_motion_attention_learns_the_same_each_time(unet, tmp_path):
    """Dropout in training would change the second run."""
    losses = []
    for number in range(2):
        method, result = fitted(unet, "lora", tmp_path / str(number))
        losses.append(result.losses)
        ups = {name: value.clone() for name, value in method.state().items() if ".lora_B." in name}
        method.remove()
    assert losses[0] == losses[1]
    assert len(ups) == 2 * len(unet.projections("motion")["v"])
    assert any(name.startswith("transformer_in.") for name in ups)
    assert all(value.abs().max() > 0 for value in ups.values())


@pytest.mark.parametrize("name", ["lora", "full_rank"])
def test_with_tau_0_the_stock_pipeline_gives_our_samples(name, unet, folder, tmp_path):
    method, _ = fitted(unet, name, tmp_path)
    ours = sampled(unet, method.set_active)
    path = save_adapter(tmp_path / "adapter", unet, method, RECIPE)
    keys = get_peft_model_state_dict(unet.network, adapter_name="motionexp") if name == "lora" else {}
    method.remove()

    pipeline = TextToVideoSDPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    tensors = load_file(path)
    if name == "lora":
        # diffusers has no adapter methods for this network: peft reads the keys without their prefix.
        assert set(tensors) == {f"unet.{key}" for key in keys}
        state = {key.removeprefix("unet."): tensor for key, tensor in tensors.items()}
        with safe_open(path, framework="pt") as file:
            config = json.loads(file.metadata()["lora_adapter_metadata"])
        settings = LoraConfig(**{key.removeprefix("unet."): value for key, value in config.items()})
        inject_adapter_in_model(settings, pipeline.unet)
        result = set_peft_model_state_dict(pipeline.unet, state)
    else:
        result = pipeline.unet.load_state_dict(tensors, strict=False)
    assert not result.unexpected_keys
    theirs = pipeline(
        "a dog runs",
        num_inference_steps=5,
        guidance_scale=3.0,
        num_frames=FRAMES,
        latents=drawn(),
        output_type="latent",
    ).frames
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours - sampled(unet)).abs().max() > 1e-3
