"""Show-1 behind our interface, against a slow transcription of its network's and its pipeline's steps."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from motionexp.backbones.show1 import Show1Backbone
from motionexp.backbones.show1_network import ShowOneUNet
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.methods.adapters import save_adapter
from motionexp.methods.lora import LoRA
from tests.support.tiny_show1 import SCHEDULER, save_tiny_show1, tiny_network
from tests.support.training_runs import RECIPE, change

CAPTIONS = ["a red ball", "A Blue Cat "]
FRAMES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_show1(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Show1Backbone:
    return Show1Backbone.from_pretrained(folder, name="tiny")


def noisy(videos: int = 1, frames: int = FRAMES) -> Tensor:
    return torch.randn(videos, 3, frames, 10, 16, generator=torch.Generator().manual_seed(1))


# the network


def along_time(block: nn.Module, kind: str, index: int, pictures: Tensor, frames: int) -> Tensor:
    """What the authors call right after a layer, with the number of frames."""
    output = block.get_submodule(f"temp_{kind}.{index}")(pictures, num_frames=frames)
    return output if kind == "convs" else output.sample


def through_block(
    block: nn.Module, x: Tensor, time: Tensor, text: Tensor, frames: int, skips: list[Tensor] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """A block down (skips is None) or up, layer by layer; `forward` itself runs nothing hooked on."""
    states = []
    for index, layer in enumerate(block.resnets):
        if skips is not None:
            x = torch.cat([x, skips.pop()], dim=1)
        x = along_time(block, "convs", index, layer.forward(x, time), frames)
        if hasattr(block, "attentions"):
            x = block.attentions[index].forward(x, encoder_hidden_states=text)
            x = along_time(block, "attentions", index, x, frames)
        states.append(x)
    for layer in getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None) or ():
        x = layer(x, time)
        states.append(x)
    return x, states


@torch.no_grad()
def transcribed(network: ShowOneUNet, video: Tensor, t: Tensor, captions: Tensor) -> Tensor:
    """The authors' forward pass, with the time and the text embedded once for all frames of a video."""
    frames = video.shape[2]
    time = network.time_embedding(network.time_proj(t)) + network.add_embedding(captions)
    text = network.encoder_hid_proj(captions).repeat_interleave(frames, dim=0)
    time = time.repeat_interleave(frames, dim=0)
    x = network.conv_in(torch.cat([frames_of.transpose(0, 1) for frames_of in video]))
    skips = [x]
    for block in network.down_blocks:
        x, states = through_block(block, x, time, text, frames)
        skips += states
    mid = network.mid_block
    x = along_time(mid, "convs", 0, mid.resnets[0].forward(x, time), frames)
    x = along_time(mid, "attentions", 0, mid.attentions[0].forward(x, encoder_hidden_states=text), frames)
    x = along_time(mid, "convs", 1, mid.resnets[1].forward(x, time), frames)
    for block in network.up_blocks:
        x, _ = through_block(block, x, time, text, frames, skips)
    x = network.conv_out(network.conv_act(network.conv_norm_out(x)))
    return torch.stack([pictures.transpose(0, 1) for pictures in x.split(frames)])


def test_the_network_is_the_transcribed_one(backbone: Show1Backbone) -> None:
    network, video, t = backbone.network, noisy(2), torch.tensor([700, 20])
    captions = backbone.embed(CAPTIONS).embeds
    reference = transcribed(network, video, t, captions)
    assert reference.shape == (2, 6, FRAMES, 10, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(video, t, captions), reference, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(backbone.predict(video, t, backbone.embed(CAPTIONS)), reference[:, :3])
        # Frames hear each other, and the caption.
        alone = network(video[:, :, :1], t, captions)
        recaptioned = network(video, t, captions.flip(0))
    assert (alone - reference[:, :, :1]).abs().max() > 0.01
    assert (recaptioned - reference).abs().max() > 0.01


def test_the_hubs_configuration_is_read_as_it_is(folder: Path) -> None:
    saved = json.loads((folder / "unet" / "config.json").read_text())
    assert saved["down_block_types"] == ["ResnetDownsampleBlock3D", "SimpleCrossAttnDownBlock3D"]
    assert saved["mid_block_type"] == "UNetMidBlock3DSimpleCrossAttn"
    with pytest.raises(ValueError, match="transfromer_in_opt=true"):
        ShowOneUNet.from_config(saved | {"transfromer_in_opt": True})
    again = ShowOneUNet.from_pretrained(folder / "unet").state_dict()
    first = tiny_network().state_dict()
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)


# the pipeline


@torch.no_grad()
def pipeline(
    backbone: Show1Backbone, network: nn.Module, noise: Tensor, settings: SamplerSettings, negative: str = ""
) -> Tensor:
    """The authors' loop: guidance of the noise alone, and a scheduler that takes frames as a batch."""
    scheduler = DDIMScheduler.from_config(
        SCHEDULER | {"_class_name": "DDIMScheduler", "thresholding": False, "variance_type": "fixed_small"}
    )
    scheduler.set_timesteps(settings.steps)
    embeds = []
    for caption in (negative, CAPTIONS[0]):
        tokens = backbone.tokenizer([caption], padding="max_length", max_length=77, return_tensors="pt")
        embeds.append(backbone.text_encoder(tokens.input_ids, tokens.attention_mask)[0])
    x = noise
    for t in scheduler.timesteps:
        without, prompted = (network(x.to(text.dtype), t[None], text)[:, :3].to(x.dtype) for text in embeds)
        output = without + settings.guidance_scale * (prompted - without) if settings.guided else prompted
        pictures = x.permute(0, 2, 1, 3, 4).reshape(-1, 3, *x.shape[3:])
        flat = output.permute(0, 2, 1, 3, 4).reshape(-1, 3, *x.shape[3:])
        flat = scheduler.step(flat, t, pictures).prev_sample
        x = flat.reshape(1, -1, 3, *x.shape[3:]).permute(0, 2, 1, 3, 4)
    return x


def ours(backbone: Show1Backbone, noise: Tensor, settings: SamplerSettings, **more: object) -> Tensor:
    captions = backbone.embed(CAPTIONS[:1]), backbone.embed([""])
    return sample_latents(backbone, *captions, noise, settings, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_samples_equal_the_transcribed_pipeline(folder: Path, guidance_scale: float) -> None:
    # In double precision: at t = 999 this schedule turns a difference of the noise into 20,000 of it in x_0.
    backbone = Show1Backbone.from_pretrained(folder, dtype=torch.float64)
    settings = SamplerSettings(steps=5, guidance_scale=guidance_scale)
    reference = pipeline(backbone, backbone.network, noisy(), settings)
    torch.testing.assert_close(ours(backbone, noisy(), settings), reference, rtol=1e-4, atol=1e-4)


def test_an_adapter_fits_the_network_through_peft(
    backbone: Show1Backbone, folder: Path, tmp_path: Path
) -> None:
    settings = SamplerSettings(steps=3, guidance_scale=3.0)
    method = LoRA(backbone, Window(0), rank=2, alpha=2.0)
    change(method, size=0.3)
    tuned = ours(backbone, noisy(), settings, gate=method.set_active)
    path = save_adapter(tmp_path, backbone, method, RECIPE)
    method.remove()
    state = {name.removeprefix("unet."): tensor for name, tensor in load_file(path).items()}
    names = [name.removesuffix(".lora_A.weight") for name in state if name.endswith("lora_A.weight")]
    fresh = ShowOneUNet.from_pretrained(folder / "unet")
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=2, target_modules=names), fresh)
    assert not set_peft_model_state_dict(fresh, state).unexpected_keys
    reference = pipeline(backbone, fresh, noisy(), settings)
    assert (tuned - ours(backbone, noisy(), settings)).abs().max() > 0.01
    torch.testing.assert_close(tuned, reference, rtol=1e-4, atol=1e-4)


# the rest of the interface


def test_pixels_are_the_latents(backbone: Show1Backbone) -> None:
    frames = torch.randint(0, 256, (2, FRAMES, 10, 16, 3), dtype=torch.uint8)
    pixels = backbone.encode(frames)
    assert pixels.shape == (2, 3, FRAMES, 10, 16)
    assert (pixels.min(), pixels.max()) >= (-1, -1)
    torch.testing.assert_close(pixels[0, :, 1], frames[0, 1].permute(2, 0, 1) / 127.5 - 1)
    assert torch.equal(backbone.decode(pixels), frames)
    assert backbone.decode(pixels * 9).max() == 255
