"""Models that are conditioned on an image, against diffusers' pipelines."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from motionexp.backbones import load_backbone
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.errors import InputError
from tests.support.tiny_families import noise
from tests.support.tiny_image_models import (
    IMAGE_MODELS,
    WAN_IMAGE,
    ImageModel,
    save_tiny_cogvideox_image,
    save_tiny_wan_image,
)

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
