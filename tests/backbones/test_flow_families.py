"""LTX-Video, Mochi and HunyuanVideo behind our interface, against diffusers' pipelines."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    HunyuanVideoPipeline,
    LTXPipeline,
    MochiPipeline,
)
from torch import Tensor

from motionexp.backbones import hunyuan, load_backbone, ltx, mochi
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.errors import InputError
from tests.support.tiny_flow import save_tiny_hunyuan, save_tiny_ltx, save_tiny_mochi
from tests.support.tuned_flow import tuned_everywhere

CAPTION, NEGATIVE = "A cat", "dull"
# Like the real one it ends in a token of its own, so that an empty caption has one.
BARE = {"template": "{} e", "crop_start": 0}


@dataclass(frozen=True)
class Family:
    """Of a tiny model: how it is made, its classes, a video (frames, height, width) and its latents."""

    save: Callable[[Path], Path]
    kind: type[PipelineBackbone]
    pipeline: type[DiffusionPipeline]
    video: tuple[int, int, int]
    latents: tuple[int, int, int, int]
    more: dict[str, Any] = field(default_factory=dict)

    def noise(self) -> Tensor:
        return torch.randn(1, *self.latents, generator=torch.Generator().manual_seed(1))

    def stock(
        self, folder: Path, settings: SamplerSettings, output: str = "latent", loras: Path | None = None
    ) -> Tensor:
        """What the stock pipeline makes of the noise; latents as (1, C, F, h, w)."""
        pipeline = self.pipeline.from_pretrained(folder, local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        if loras is not None:
            pipeline.load_lora_weights(str(loras))
        frames, height, width = self.video
        start = self.noise()
        packed = self.pipeline is LTXPipeline
        hunyuans = self.pipeline is HunyuanVideoPipeline
        scale = "true_cfg_scale" if hunyuans else "guidance_scale"
        made = pipeline(
            prompt=CAPTION,
            negative_prompt=NEGATIVE,
            num_frames=frames,
            height=height,
            width=width,
            num_inference_steps=settings.steps,
            latents=start.flatten(2).transpose(1, 2) if packed else start.clone(),
            output_type=output,
            **{scale: settings.guidance_scale},
            **self.more,
        ).frames
        if output == "latent" and packed:
            return made.transpose(1, 2).unflatten(2, self.latents[1:])
        return made if isinstance(made, Tensor) else torch.from_numpy(made)


FAMILIES = {
    "ltx": Family(
        save_tiny_ltx, ltx.LTXBackbone, LTXPipeline, (5, 32, 64), (8, 2, 8, 16), {"frame_rate": 24}
    ),
    "mochi": Family(save_tiny_mochi, mochi.MochiBackbone, MochiPipeline, (7, 16, 32), (12, 2, 2, 4)),
    "hunyuan": Family(
        save_tiny_hunyuan,
        hunyuan.HunyuanBackbone,
        HunyuanVideoPipeline,
        (5, 16, 32),
        (4, 2, 2, 4),
        {"prompt_template": BARE},
    ),
}


@pytest.fixture(autouse=True)
def _no_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny Llama's tokenizer would not make of Hunyuan's template as many tokens as are cut off."""
    monkeypatch.setattr(hunyuan.HunyuanBackbone, "template", BARE)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def backbone(family: Family, folder: Path) -> PipelineBackbone:
    loaded = load_backbone(folder, device="cpu", precision="fp32", name="tiny", fps=24)
    assert type(loaded) is family.kind
    loaded.frames, loaded.height, loaded.width = family.video
    return loaded


def ours(backbone: PipelineBackbone, start: Tensor, settings: SamplerSettings, **more: Any) -> Tensor:
    captions = backbone.embed([CAPTION]), backbone.embed([NEGATIVE])
    return sample_latents(backbone, *captions, start, settings, **more)


@pytest.mark.parametrize(("steps", "guidance_scale"), [(2, 1.0), (7, 3.0), (20, 1.0)])
def test_samples_equal_the_stock_pipeline(
    family: Family, folder: Path, backbone: PipelineBackbone, steps: int, guidance_scale: float
) -> None:
    settings = SamplerSettings(steps, guidance_scale)
    wanted = family.stock(folder, settings)
    torch.testing.assert_close(ours(backbone, family.noise(), settings), wanted, rtol=1e-4, atol=1e-4)


def test_frames_equal_the_stock_pipelines(family: Family, folder: Path, backbone: PipelineBackbone) -> None:
    settings = SamplerSettings(4, 2.0)
    frames = backbone.decode(ours(backbone, family.noise(), settings)) / 255
    wanted = family.stock(folder, settings, output="np")
    assert wanted.shape == (1, *family.video, 3)
    # Half a level of rounding, and a little for the latents.
    assert (frames - wanted).abs().max() < 0.52 / 255


def test_latent_shapes(family: Family, backbone: PipelineBackbone) -> None:
    assert backbone.latent_shape(*family.video) == family.latents
    frames, height, width = family.video
    for wrong in (0, frames - 1, frames + 1):
        with pytest.raises(InputError, match=f"frames={wrong}: tiny needs 1 frame and a multiple of"):
            backbone.latent_shape(wrong, height, width)
    with pytest.raises(InputError, match="pixels"):
        backbone.latent_shape(frames, height + 2, width)


def test_batches_of_captions_of_any_length_are_as_one_by_one(
    family: Family, backbone: PipelineBackbone
) -> None:
    captions = ["a", "A Red Ball", ""]
    together, x_t = backbone.embed(captions), family.noise().repeat(3, 1, 1, 1, 1)
    with torch.no_grad():
        batch = backbone.predict(x_t, torch.tensor([900.0, 400.5, 20.0]), together)
        for row, t in enumerate((900.0, 400.5, 20.0)):
            alone = backbone.predict(x_t[:1], t, backbone.embed([captions[row]]))
            torch.testing.assert_close(batch[row : row + 1], alone, rtol=1e-4, atol=1e-5)
        other = backbone.predict(x_t, 400.5, together)
    assert (other[0] - other[1]).abs().max() > 1e-4


def test_a_tuned_adapter_is_on_in_its_window_and_fits_the_stock_pipeline(
    family: Family, folder: Path, backbone: PipelineBackbone, tmp_path: Path
) -> None:
    settings, start = SamplerSettings(5, 2.0), family.noise()
    everywhere = tuned_everywhere(backbone, start, settings, ours, tmp_path)
    wanted = family.stock(folder, settings, loras=tmp_path)
    torch.testing.assert_close(everywhere, wanted, rtol=1e-4, atol=1e-4)


def test_only_the_motion_attention_can_be_tuned(backbone: PipelineBackbone) -> None:
    with pytest.raises(InputError, match="no spatial attention"):
        backbone.projections("spatial")
    layers = [
        backbone.network.get_submodule(name)
        for each in backbone.projections("motion").values()
        for name in each
    ]
    assert all(isinstance(layer, torch.nn.Linear) for layer in layers)


def test_ltxs_shift_is_that_of_its_size(tmp_path: Path) -> None:
    backbone = ltx.LTXBackbone.from_pretrained(save_tiny_ltx(tmp_path / "tiny"))
    shifts = []
    for frames, side in ((1, 8), (5, 16), (9, 16)):
        backbone.frames, backbone.height, backbone.width = frames, side, side
        shifts.append(backbone.schedule.shift)
    assert shifts[0] == pytest.approx(2.71828**0.95, rel=1e-4)  # 4 tokens
    assert shifts == sorted(shifts)
    assert shifts[1] == pytest.approx(2.71828 ** (0.95 + 1.1 * 28 / 60), rel=1e-4)  # 32 tokens
