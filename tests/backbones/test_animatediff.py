"""AnimateDiff behind our interface, against diffusers' pipeline and its parts."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn

from motionexp.backbones import load_backbone
from motionexp.backbones.animatediff import ATTENTIONS, AnimateDiffBackbone
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import Recipe, save_adapter
from motionexp.methods.lora import LoRA
from tests.support.tiny_animatediff import MOST_FRAMES, save_tiny_animatediff, stock_pipeline

CAPTIONS = ["a red ball", "a blue cat 7"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_animatediff(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def backbone(path: str) -> AnimateDiffBackbone:
    return AnimateDiffBackbone.from_pretrained(path)


def noisy(frames: int = 5) -> Tensor:
    return torch.randn(1, 4, frames, 6, 4, generator=torch.Generator().manual_seed(1))


def stock(
    path: str, noise: Tensor, settings: SamplerSettings, caption: str = CAPTIONS[0], lora: Path | None = None
) -> Tensor:
    pipeline = stock_pipeline(path)
    if lora is not None:
        pipeline.load_lora_weights(str(lora), weight_name="adapter.safetensors")
    frames: Tensor = pipeline(
        caption,
        negative_prompt="dull",
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        num_frames=noise.shape[2],
        height=4 * noise.shape[3],
        width=4 * noise.shape[4],
        latents=noise.clone(),
        output_type="latent",
    ).frames
    return frames


def ours(backbone: AnimateDiffBackbone, noise: Tensor, settings: SamplerSettings, **more: object) -> Tensor:
    captions = backbone.embed(CAPTIONS[:1]), backbone.embed(["dull"])
    return sample_latents(backbone, *captions, noise, settings, **more)  # type: ignore[arg-type]


def test_a_backbone_says_what_it_is(backbone: AnimateDiffBackbone, path: str) -> None:
    assert (backbone.name, backbone.source, backbone.component) == ("tiny", path, "unet")
    assert isinstance(backbone.network, UNetMotionModel)
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
    again = load_backbone(path, device="cpu", precision="fp32")
    assert again.weights_hash == backbone.weights_hash
    assert AnimateDiffBackbone.caption_problems(path, ["a cat"]) == []


@pytest.mark.parametrize(("guidance_scale", "frames"), [(4.0, 5), (1.0, 8), (4.0, 1)])
def test_samples_equal_the_stock_pipeline(
    backbone: AnimateDiffBackbone, path: str, guidance_scale: float, frames: int
) -> None:
    settings, noise = SamplerSettings(steps=3, guidance_scale=guidance_scale), noisy(frames)
    latents, wanted = ours(backbone, noise, settings), stock(path, noise, settings)
    torch.testing.assert_close(latents, wanted, rtol=1e-4, atol=1e-4)
    # The captions matter, and the frames to each other, else the comparison would show little.
    assert (stock(path, noise, settings, CAPTIONS[1]) - wanted).abs().max() > 0.01
    if frames > 1:
        alone = stock(path, noise[:, :, :1], settings)
        assert (alone - wanted[:, :, :1]).abs().max() > 0.01


def test_the_adapter_fits_the_stock_pipeline(
    backbone: AnimateDiffBackbone, path: str, tmp_path: Path
) -> None:
    settings, noise = SamplerSettings(steps=4, guidance_scale=3.0), noisy()
    base = ours(backbone, noise, settings)
    method = LoRA(backbone, Window(0), rank=2, alpha=6.0)
    for name, parameter in method.parameters.items():
        parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    tuned = ours(backbone, noise, settings, gate=method.set_active)
    save_adapter(tmp_path, backbone, method, Recipe(["a"], 0, 1, 1, 0.1, 0.0, "adamw", {}))
    method.remove()
    assert (tuned - base).abs().max() > 0.01
    torch.testing.assert_close(stock(path, noise, settings, lora=tmp_path), tuned, rtol=1e-4, atol=1e-4)


def test_projections_are_along_what_they_are_called_after(backbone: AnimateDiffBackbone) -> None:
    heard: dict[str, set[int]] = {}

    def listen(kind: str, layer: nn.Module) -> None:
        layer.register_forward_hook(lambda _, args, __: heard.setdefault(kind, set()).add(args[0].shape[1]))

    fresh = AnimateDiffBackbone.from_pretrained(backbone.source)
    for kind in ATTENTIONS:
        names = fresh.projections(kind)
        assert len(names["q"]) == len(names["o"]) == {"motion": 12, "spatial": 4, "cross": 4}[kind]
        for name in names["k"]:
            listen(kind, fresh.network.get_submodule(name))
    with torch.no_grad():
        fresh.predict(noisy(), 500, fresh.embed(["a"]))
    # Frames; positions of a frame at both sizes; tokens of a caption.
    assert heard == {"motion": {5}, "spatial": {24, 6}, "cross": {20}}


def test_sizes_and_frames(backbone: AnimateDiffBackbone) -> None:
    assert backbone.latent_shape(MOST_FRAMES, 16, 24) == (4, MOST_FRAMES, 4, 6)
    with pytest.raises(InputError, match=f"frames=9: the motion adapter of tiny takes {MOST_FRAMES} at most"):
        backbone.latent_shape(9, 16, 16)


def test_the_schedule_is_the_adapters(backbone: AnimateDiffBackbone, path: str) -> None:
    stock_schedule: DDIMScheduler = stock_pipeline(path).scheduler
    stock_schedule.set_timesteps(7)
    assert backbone.schedule.timesteps(7) == stock_schedule.timesteps.tolist()
    torch.testing.assert_close(backbone.schedule.alphas_cumprod, stock_schedule.alphas_cumprod)


def test_what_does_not_go_together_is_refused(path: str, tmp_path: Path) -> None:
    image, adapter = path.split("+")
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "model_index.json").write_text(json.dumps({"_class_name": "LattePipeline"}))
    with pytest.raises(InputError, match="a LattePipeline; a StableDiffusionPipeline is wanted"):
        load_backbone(f"{tmp_path / 'video'}+{adapter}")
    with pytest.raises(InputError, match="there is no folder"):
        load_backbone(f"{image}+{tmp_path / 'none'}")
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    MotionAdapter(block_out_channels=(8, 16, 32), motion_norm_num_groups=2).save_pretrained(other)
    with pytest.raises(InputError, match="the motion adapter does not belong to this image model"):
        load_backbone(f"{image}+{other}")
    shutil.rmtree(other)
    UNet2DConditionModel(block_out_channels=(8, 16), norm_num_groups=2, **_blocks()).save_pretrained(other)
    with pytest.raises(
        InputError, match=r"motion_adapter/config.json: of a UNet2DConditionModel; .* MotionAdapter"
    ):
        load_backbone(f"{image}+{other}")
    assert torch.get_default_dtype() == torch.float32


def _blocks() -> dict[str, tuple[str, str]]:
    return {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
