"""Wan behind our interface, with one network and with two experts, against diffusers' pipeline."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file
from torch import Tensor

from motionexp.backbones import load_backbone
from motionexp.backbones.wan import WanBackbone, WanExpertsBackbone
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import Recipe, load_adapter, save_adapter
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.lora import LoRA
from motionexp.methods.training import Example, TrainingSettings, fit
from tests.support.tiny_flow import first_order, save_tiny_wan
from tests.support.tuned_flow import tuned_everywhere

CAPTION, NEGATIVE = "A Cat &amp; a  dog", "dull"
SHAPE = (4, 2, 2, 4)
KINDS = {"unipc": {}, "euler": {"euler": True}, "experts": {"experts": True}}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("models") / "tiny", **KINDS[kind])


@pytest.fixture(scope="module")
def backbone(folder: Path) -> WanBackbone:
    loaded = load_backbone(folder, device="cpu", precision="fp32", name="tiny", fps=16)
    assert isinstance(loaded, WanBackbone)
    return loaded


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("models") / "experts", experts=True)


def stock(
    folder: Path, start: Tensor, settings: SamplerSettings, output: str = "latent", loras: Path | None = None
) -> Tensor:
    """The stock pipeline; UniPC without its second order."""
    pipeline = WanPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    if type(pipeline.scheduler).__name__ == "UniPCMultistepScheduler":
        pipeline.scheduler = first_order(settings.steps)
    if loras is not None:
        tensors = load_file(loras / "adapter.safetensors")
        for component, second in (("transformer.", False), ("transformer_2.", True)):
            own = {
                "transformer." + name.removeprefix(component): each
                for name, each in tensors.items()
                if name.startswith(component)
            }
            if own:
                pipeline.load_lora_weights(own, load_into_transformer_2=second)
    _, _, frames, height, width = start.shape
    return pipeline(
        CAPTION,
        negative_prompt=NEGATIVE,
        num_frames=4 * frames - 3,
        height=8 * height,
        width=8 * width,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        latents=start.clone(),
        output_type=output,
    ).frames


def noise(shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))


def ours(backbone: WanBackbone, start: Tensor, settings: SamplerSettings, **more: object) -> Tensor:
    captions = backbone.embed([CAPTION]), backbone.embed([NEGATIVE])
    return sample_latents(backbone, *captions, start, settings, **more)  # type: ignore[arg-type]


def test_a_backbone_says_what_it_is(backbone: WanBackbone, kind: str) -> None:
    assert (backbone.name, backbone.fps) == ("tiny", 16)
    assert (backbone.frames, backbone.height, backbone.width) == (81, 480, 832)
    assert type(backbone) is (WanExpertsBackbone if kind == "experts" else WanBackbone)
    assert isinstance(backbone.schedule, FlowSchedule)
    assert backbone.schedule.shift == 3
    assert backbone.schedule.spacing == ("euler" if kind == "euler" else "unipc")
    assert not backbone.network.training
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())


@pytest.mark.parametrize(
    ("steps", "guidance_scale", "shape"),
    [(1, 1.0, SHAPE), (7, 5.0, SHAPE), (20, 1.0, (4, 1, 2, 2)), (4, 3.0, (4, 3, 4, 2))],
)
def test_samples_equal_the_stock_pipeline(
    folder: Path, backbone: WanBackbone, steps: int, guidance_scale: float, shape: tuple[int, ...]
) -> None:
    settings, start = SamplerSettings(steps, guidance_scale), noise(shape)
    torch.testing.assert_close(
        ours(backbone, start, settings), stock(folder, start, settings), rtol=1e-4, atol=1e-4
    )


def test_frames_equal_the_stock_pipelines(folder: Path, backbone: WanBackbone) -> None:
    settings, start = SamplerSettings(5, 3.0), noise()
    frames = backbone.decode(ours(backbone, start, settings)) / 255
    wanted = torch.from_numpy(stock(folder, start, settings, output="np"))
    assert wanted.shape == (1, 5, 16, 32, 3)
    # Half a level of rounding, and a little for the latents.
    assert (frames - wanted).abs().max() < 0.52 / 255


def test_captions_are_embedded_as_the_pipeline_does(folder: Path, backbone: WanBackbone) -> None:
    pipeline = WanPipeline.from_pretrained(folder, local_files_only=True)
    captions = [CAPTION, "", "a b c"]
    with torch.no_grad():
        wanted, _ = pipeline.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=512, device="cpu"
        )
    conditioning = backbone.embed(captions)
    assert conditioning.mask is None
    torch.testing.assert_close(conditioning.embeds, wanted, rtol=1e-5, atol=1e-5)
    (problem,) = backbone.check_captions(["a" * 600, "fine"])
    assert "at most 512 fit" in problem


def test_latent_shapes(backbone: WanBackbone) -> None:
    assert backbone.latent_shape(81, 480, 832) == (4, 21, 60, 104)
    assert backbone.latent_shape(1, 16, 16) == (4, 1, 2, 2)
    for frames in (0, 4, 16):
        with pytest.raises(InputError, match=f"frames={frames}: tiny needs 1 frame and a multiple of 4"):
            backbone.latent_shape(frames, 16, 16)
    with pytest.raises(InputError, match="multiples of 16 pixels"):
        backbone.latent_shape(5, 24, 16)


def test_projections_are_those_of_the_self_attention(backbone: WanBackbone, kind: str) -> None:
    parts = ["transformer.", "transformer_2."] if kind == "experts" else [""]
    names = backbone.projections("motion")
    assert list(names) == ["q", "k", "v", "o"]
    assert names["o"] == [f"{part}blocks.{block}.attn1.to_out.0" for part in parts for block in range(2)]
    assert backbone.projections("cross")["q"][0] == f"{parts[0]}blocks.0.attn2.to_q"
    layers = [backbone.network.get_submodule(name) for group in names.values() for name in group]
    assert all(isinstance(layer, torch.nn.Linear) for layer in layers)
    with pytest.raises(InputError, match="no spatial attention"):
        backbone.projections("spatial")


def test_what_is_not_wan_is_refused_before_weights_are_read(experts: Path, tmp_path: Path) -> None:
    for part in experts.iterdir():
        (tmp_path / part.name).symlink_to(part)
    index = json.loads((experts / "model_index.json").read_text())
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"expand_timesteps": True}))
    with pytest.raises(InputError, match="expand_timesteps=True"):
        load_backbone(tmp_path)
    with pytest.raises(InputError, match=r"boundary_ratio=0\.875"):
        WanBackbone.from_pretrained(experts)


def test_each_row_goes_to_the_expert_of_its_timestep(experts: Path) -> None:
    backbone = WanExpertsBackbone.from_pretrained(experts)
    calls: list[tuple[str, int]] = []
    for name in ("transformer", "transformer_2"):
        backbone.network.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: calls.append((name, len(args[0])))
        )
    x_t, conditioning = noise().repeat(4, 1, 1, 1, 1), backbone.embed([CAPTION]).repeat(4)
    t = torch.tensor([1000.0, 400.0, 875.0, 874.9])
    with torch.no_grad():
        together = backbone.predict(x_t, t, conditioning)
        assert calls == [("transformer", 2), ("transformer_2", 2)]
        alone = [backbone.predict(x_t[:1], float(each), conditioning[0]) for each in t]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert [name for name, _ in calls[2:]] == ["transformer", "transformer_2", "transformer", "transformer_2"]


WINDOWS = {
    "high": (Window(900), {"transformer"}),
    "low": (Window(200, 800), {"transformer_2"}),
    "across": (Window(500), {"transformer", "transformer_2"}),
}


@pytest.mark.parametrize("where", WINDOWS)
def test_an_adapter_holds_the_experts_that_its_window_reaches(
    experts: Path, tmp_path: Path, where: str
) -> None:
    window, reached = WINDOWS[where]
    backbone = WanExpertsBackbone.from_pretrained(experts)
    base = ours(backbone, noise(), settings := SamplerSettings(6, 3.0))
    method = LoRA(backbone, window, rank=2, alpha=2.0)
    assert {name.split(".")[0] for name in method.parameters} == reached
    counted = LoRA.trainable_parameters(WanExpertsBackbone.from_pretrained(experts), window, rank=2)
    training = TrainingSettings(steps=3, batch_size=3, optimizer=OptimizerSettings(learning_rate=0.05))
    reference = Example(noise().roll(1), backbone.embed(["a cat runs"]))
    assert fit(backbone, method, [reference], training, tmp_path, progress=False).trained == counted
    # Where batches reach into both, both were trained.
    assert all(value.abs().max() > 0 for name, value in method.state().items() if "lora_B" in name)
    windowed = ours(backbone, noise(), settings, gate=method.set_active)
    assert (windowed - base).abs().max() > 1e-3
    save_adapter(tmp_path, backbone, method, Recipe(["a cat runs"], 0, 3, 3, 0.05, 0.01, "adamw", {}))

    again = WanExpertsBackbone.from_pretrained(experts)
    loaded = load_adapter(tmp_path, again)
    assert torch.equal(ours(again, noise(), settings, gate=loaded.set_active), windowed)
    loaded.window = Window(0)
    everywhere = ours(again, noise(), settings, gate=loaded.set_active)
    wanted = stock(experts, noise(), settings, loras=tmp_path)
    torch.testing.assert_close(everywhere, wanted, rtol=1e-4, atol=1e-4)


def test_a_tuned_adapter_is_on_in_its_window_and_fits_the_stock_pipeline(
    folder: Path, backbone: WanBackbone, kind: str, tmp_path: Path
) -> None:
    if kind == "experts":
        pytest.skip("has a test of its own")
    settings, start = SamplerSettings(5, 3.0), noise()
    everywhere = tuned_everywhere(backbone, start, settings, ours, tmp_path)
    pipeline = WanPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.load_lora_weights(str(tmp_path))
    pipeline.set_progress_bar_config(disable=True)
    if kind == "unipc":
        pipeline.scheduler = first_order(5)
    wanted = pipeline(
        CAPTION,
        negative_prompt=NEGATIVE,
        num_frames=5,
        height=16,
        width=32,
        num_inference_steps=5,
        guidance_scale=3.0,
        latents=start.clone(),
        output_type="latent",
    ).frames
    torch.testing.assert_close(everywhere, wanted, rtol=1e-4, atol=1e-4)
