"""Models that are conditioned on an image, against diffusers' pipelines."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from motionexp.backbones import load_backbone
from motionexp.config.export import ExportConfig
from motionexp.config.schema import ModelConfig
from motionexp.diffusion.backbone import Backbone, Conditioning, ImageCondition
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.export import export
from motionexp.methods.adapters import attach_adapter, save_adapter
from motionexp.methods.base import TuningMethod
from motionexp.methods.layer_names import LayerNames
from motionexp.methods.lora import LoRA
from motionexp.methods.step import Step
from tests.support.readme_program import run_readme
from tests.support.tiny_families import NEGATIVE, noise
from tests.support.tiny_image_models import (
    IMAGE_MODELS,
    WAN_IMAGE,
    ImageModel,
    save_tiny_cogvideox_image,
    save_tiny_wan_image,
)
from tests.support.training_runs import RECIPE, change

SETTINGS = SamplerSettings(5, 3.0)


@pytest.fixture(scope="module", params=IMAGE_MODELS)
def model(request: pytest.FixtureRequest) -> ImageModel:
    return IMAGE_MODELS[request.param]


@pytest.fixture(scope="module")
def folder(model: ImageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def backbone(model: ImageModel, folder: Path) -> Backbone:
    return model.load(folder)


def sampled(model: ImageModel, backbone: Backbone, image: Tensor | None = None) -> Tensor:
    return sample_latents(backbone, *model.captions(backbone, image), noise((1, *model.latents)), SETTINGS)


def test_samples_equal_the_pipelines(model: ImageModel, folder: Path, backbone: Backbone) -> None:
    assert type(backbone) is model.kind
    assert backbone.latent_shape(*model.video) == model.latents
    ours = sampled(model, backbone)
    assert_close(ours, model.stock(folder, noise((1, *model.latents)), SETTINGS), rtol=1e-4, atol=1e-4)
    # The image matters, else the comparison would show little.
    assert (sampled(model, backbone, model.image.flip(0)) - ours).abs().max() > 0.02


def test_without_inverted_scales_too(tmp_path: Path) -> None:
    model = IMAGE_MODELS["cogvideox"]
    folder = save_tiny_cogvideox_image(tmp_path, inverted=False)
    expected = model.stock(folder, noise((1, *model.latents)), SETTINGS)
    assert_close(sampled(model, model.load(folder)), expected, rtol=1e-4, atol=1e-4)


def test_an_image_encoder_with_a_projection_is_the_same(tmp_path: Path) -> None:
    backbone = WAN_IMAGE.load(save_tiny_wan_image(tmp_path, projected=True))
    expected = WAN_IMAGE.stock(tmp_path, noise((1, *WAN_IMAGE.latents)), SETTINGS)
    assert_close(sampled(WAN_IMAGE, backbone), expected, rtol=1e-4, atol=1e-4)
    # The network hears the image encoder, and not the latents alone.
    caption, other = (
        WAN_IMAGE.captions(backbone, image)[0] for image in (WAN_IMAGE.image, WAN_IMAGE.image.flip(0))
    )
    assert caption.image is not None
    assert other.image is not None
    mixed = replace(caption, image=replace(caption.image, embeds=other.image.embeds))
    outputs = [backbone.predict(noise((1, *WAN_IMAGE.latents)), 500, seen) for seen in (caption, mixed)]
    assert (outputs[0] - outputs[1]).abs().max() > 0.02


@torch.no_grad()
def test_rows_have_images_of_their_own(model: ImageModel, backbone: Backbone) -> None:
    captions = [model.captions(backbone, image)[0] for image in (model.image, model.image.flip(0))]
    x_t = noise((2, *model.latents))
    together = backbone.predict(x_t, torch.tensor([900.0, 300.0]), Conditioning.cat(captions))
    for row, t in enumerate((900.0, 300.0)):
        alone = backbone.predict(x_t[row : row + 1], t, captions[row])
        assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    negative, _ = backbone.guidance_pair(Conditioning.cat(captions), backbone.embed(["dull"]))
    assert negative.image is not None
    assert torch.equal(negative.image.channels[1:], captions[1].image.channels)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="image"):
        backbone.predict(x_t[:1], 500, backbone.embed(["a"]))
    with pytest.raises(ValueError, match="image"):
        Conditioning.cat([captions[0], backbone.embed(["a"])])


def test_a_frame_alone_has_its_part_of_the_image() -> None:
    channels = torch.arange(24.0).reshape(2, 3, 4, 1, 1)  # (B, E, F, h, w)
    video = torch.zeros(2, 1, 4, 1, 1)
    captions = Conditioning(torch.zeros(2, 5, 6)).with_image(ImageCondition(channels))
    step = Step(video, video, torch.ones(2), video, video, captions).frames([2, 0])
    assert step.conditioning.image is not None
    assert torch.equal(step.conditioning.image.channels[:, :, 0, 0, 0], channels[[0, 1], :, [2, 0], 0, 0])


def test_an_image_is_not_encoded_after_the_release(model: ImageModel, folder: Path) -> None:
    backbone = model.load(folder)
    condition = backbone.encode_image(model.image)
    backbone.release_vae_encoder()
    with pytest.raises(RuntimeError, match="release_vae_encoder"):
        backbone.encode_image(model.image)
    backbone.unload()
    assert_close(backbone.encode_image(model.image).channels, condition.channels)
    with pytest.raises(InputError, match="17 x 16"):
        backbone.encode_image(torch.zeros(17, 16, 3, dtype=torch.uint8))


CHANGES = {
    "a model of TI2V-5B": ("wan", "model_index.json", {"expand_timesteps": True}),
    "a first and a last frame": ("wan", "transformer/config.json", {"pos_embed_seq_len": 10}),
    "CogVideoX 1.5's patches": ("cogvideox", "transformer/config.json", {"patch_size_t": 2}),
    "CogVideoX 1.5's ofs": ("cogvideox", "transformer/config.json", {"ofs_embed_dim": 8}),
    "no image encoder": ("wan", "model_index.json", {"image_encoder": [None, None]}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_kinds_are_refused_before_weights_are_read(change: str, tmp_path: Path) -> None:
    name, file, settings = CHANGES[change]
    folder = IMAGE_MODELS[name].save(tmp_path / "model")
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(InputError, match=f"{file}: {next(iter(settings))}"):
        load_backbone(folder)


def test_a_damaged_image_processor_is_named(tmp_path: Path) -> None:
    folder = save_tiny_wan_image(tmp_path)
    for content in ("[", '{"size": 3.5, "crop_size": "big"}'):
        (folder / "image_processor" / "preprocessor_config.json").write_text(content)
        with pytest.raises(InputError, match="image_processor"):
            load_backbone(folder)


def test_learnt_positions_are_of_one_number_of_frames(tmp_path: Path) -> None:
    backbone = IMAGE_MODELS["cogvideox"].load(save_tiny_cogvideox_image(tmp_path))
    with pytest.raises(InputError, match="frames=17"):
        backbone.latent_shape(17, 16, 24)


def test_an_exported_adapter_keeps_its_window_in_the_pipeline(
    model: ImageModel, folder: Path, backbone: Backbone, tmp_path: Path
) -> None:
    kind, (frames, height, width) = model.kind, model.video
    low = float(backbone.schedule.timesteps(SETTINGS.steps)[2])  # the last of three steps in the window
    method = LoRA(backbone, Window(0), rank=2, alpha=6.0)
    change(method, size=0.3)
    start, captions = noise((1, *model.latents)), model.captions(backbone)
    everywhere, windowed = (
        sample_latents(backbone, *captions, start, SETTINGS, gate=switched(method, window))
        for window in (Window(0), Window(low))
    )
    assert (everywhere - windowed).abs().max() > 0.01
    save_adapter(tmp_path / "adapter", backbone, method, RECIPE)
    method.remove()
    about = ModelConfig(
        _target_=f"{kind.__module__}.{kind.__name__}.from_pretrained",
        name=backbone.name,
        path=str(folder),
        frames=frames,
        frame_range=[1, 100] if backbone.any_size else None,
        height=height,
        width=width,
        fps=24,
        max_caption_tokens=backbone.max_caption_tokens,
        steps=SETTINGS.steps,
    )
    exported = tmp_path / "exported"
    sampling = {"sampler": "ddim", "shift": None, "timestep_spacing": None, "steps": SETTINGS.steps}
    sampling |= {"guidance_scale": SETTINGS.guidance_scale, "negative_prompt": NEGATIVE}
    export(ExportConfig(str(tmp_path / "adapter"), "diffusers", exported, about, frames, sampling))

    theirs = model.stock(folder, start, SETTINGS, run=partial(run_readme, exported))
    assert_close(theirs, windowed, rtol=1e-4, atol=1e-4)
    # Read again, as it is and as another program's file.
    for path in (tmp_path / "adapter", exported):
        again = attach_adapter(path, backbone, Window(low))
        ours = sample_latents(backbone, *captions, start, SETTINGS, gate=switched(again, Window(low)))
        again.remove()
        assert_close(ours, windowed, rtol=1e-4, atol=1e-4)


def switched(method: TuningMethod, window: Window) -> Any:
    """The gate of a method with a window."""
    method.window = window
    return method.set_active


def test_layers_for_images_are_found_by_their_original_names(tmp_path: Path) -> None:
    names = LayerNames(WAN_IMAGE.load(save_tiny_wan_image(tmp_path)))
    assert names.find("diffusion_model.blocks.1.cross_attn.k_img") == ("blocks.1.attn2.add_k_proj",)
    assert names.find("lora_unet_blocks_0_cross_attn_v_img") == ("blocks.0.attn2.add_v_proj",)
    assert names.find("diffusion_model.img_emb.proj.1") == (
        "condition_embedder.image_embedder.ff.net.0.proj",
    )
