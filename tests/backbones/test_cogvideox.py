"""CogVideoX behind our interface, against diffusers' pipeline and its parts."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXPipeline
from torch import Tensor, nn

from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.config.schema import BUNDLED
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import Recipe, save_adapter
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.lora import LoRA
from motionexp.methods.training import Example, TrainingSettings, fit
from tests.support.tiny_cogvideox import FRAMES, HEIGHT, TEXT_TOKENS, WIDTH, save_tiny_cogvideox

CAPTIONS = ["a cat", "A Red Ball", ""]
NEGATIVE = "dull"
SHAPE = (4, 3, 4, 6)


@pytest.fixture(scope="module", params=[False, True], ids=["added", "rotary"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the network's two kinds of positions: added to the tokens, or turning queries and keys."""
    return save_tiny_cogvideox(tmp_path_factory.mktemp("models") / "tiny", rotary=request.param)


@pytest.fixture(scope="module")
def backbone(folder: Path) -> CogVideoXBackbone:
    return CogVideoXBackbone.from_pretrained(folder, name="tiny", fps=6)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> CogVideoXPipeline:
    return loaded(folder)


def loaded(folder: Path) -> CogVideoXPipeline:
    pipeline = CogVideoXPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(videos: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(videos, *shape, generator=torch.Generator().manual_seed(1))


def stock(
    pipeline: CogVideoXPipeline,
    start: Tensor,
    settings: SamplerSettings,
    caption: str = CAPTIONS[0],
    output: str = "latent",
) -> Tensor:
    _, _, frames, height, width = start.shape
    return pipeline(
        caption,
        negative_prompt=NEGATIVE,
        num_frames=4 * frames - 3,
        height=4 * height,
        width=4 * width,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        latents=start.transpose(1, 2).clone(),
        max_sequence_length=TEXT_TOKENS,
        output_type=output,
    ).frames


def ours(backbone: CogVideoXBackbone, start: Tensor, settings: SamplerSettings, **more: object) -> Tensor:
    captions = backbone.embed(CAPTIONS[:1]), backbone.embed([NEGATIVE])
    return sample_latents(backbone, *captions, start, settings, **more)  # type: ignore[arg-type]


def test_a_backbone_says_what_it_is(backbone: CogVideoXBackbone, folder: Path) -> None:
    assert (backbone.name, backbone.source, backbone.revision) == ("tiny", str(folder), None)
    assert (backbone.frames, backbone.height, backbone.width, backbone.fps) == (FRAMES, HEIGHT, WIDTH, 6)
    assert backbone.dtype == torch.float32
    assert backbone.max_caption_tokens == TEXT_TOKENS
    assert backbone.schedule.prediction_type == "v_prediction"
    assert backbone.schedule.alpha_bar(999) == 0
    assert not backbone.network.training
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
@pytest.mark.parametrize("steps", [7, 10, 50])
def test_samples_equal_the_stock_pipeline(
    backbone: CogVideoXBackbone, pipeline: CogVideoXPipeline, steps: int, guidance_scale: float
) -> None:
    settings, start = SamplerSettings(steps=steps, guidance_scale=guidance_scale), noise(1)
    latents = ours(backbone, start, settings)
    wanted = stock(pipeline, start, settings).transpose(1, 2)
    torch.testing.assert_close(latents, wanted, rtol=1e-4, atol=1e-4)


def test_frames_equal_the_stock_pipelines(backbone: CogVideoXBackbone, pipeline: CogVideoXPipeline) -> None:
    settings, start = SamplerSettings(steps=5, guidance_scale=3.0), noise(1)
    frames = backbone.decode(ours(backbone, start, settings)) / 255
    wanted = torch.from_numpy(stock(pipeline, start, settings, output="np"))
    assert wanted.shape == (1, FRAMES, HEIGHT, WIDTH, 3)
    # Half a level of rounding, and a little for the latents.
    assert (frames - wanted).abs().max() < 0.52 / 255
    # The caption matters, else the comparison would show little.
    other = torch.from_numpy(stock(pipeline, start, settings, "dogs", output="np"))
    assert (other - wanted).abs().max() > 0.05


@pytest.mark.parametrize("shape", [(4, 5, 8, 4), (4, 1, 4, 6), (4, 1, 2, 2)], ids=str)
def test_samples_of_other_sizes_equal_the_stock_pipeline(
    backbone: CogVideoXBackbone, pipeline: CogVideoXPipeline, shape: tuple[int, ...]
) -> None:
    settings, start = SamplerSettings(steps=4, guidance_scale=3.0), noise(1, shape)
    wanted = stock(pipeline, start, settings).transpose(1, 2)
    torch.testing.assert_close(ours(backbone, start, settings), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 9, 17, 25])
def test_as_many_frames_come_back_as_were_encoded(backbone: CogVideoXBackbone, frames: int) -> None:
    latents = backbone.encode(torch.zeros(1, frames, 8, 8, 3, dtype=torch.uint8))
    assert latents.shape[1:] == backbone.latent_shape(frames, 8, 8)
    assert backbone.decode(latents).shape == (1, frames, 8, 8, 3)


def test_latent_shapes(backbone: CogVideoXBackbone) -> None:
    assert backbone.latent_shape(FRAMES, HEIGHT, WIDTH) == SHAPE
    assert backbone.latent_shape(49, 8, 16) == (4, 13, 2, 4)
    assert backbone.latent_shape(1, 8, 8) == (4, 1, 2, 2)
    # 4 k + 1 with an odd k is encoded without a complaint, and decoded to three frames more.
    for frames in (0, 8, 13, 16):
        with pytest.raises(InputError, match=f"frames={frames}: tiny needs 1 frame and a multiple of 8"):
            backbone.latent_shape(frames, 16, 16)
    for height, width in ((20, 16), (16, 0)):
        with pytest.raises(InputError, match="multiples of 8 pixels"):
            backbone.latent_shape(FRAMES, height, width)
    with pytest.raises(InputError, match="frames=13"):
        backbone.encode(torch.zeros(1, 13, 16, 16, 3, dtype=torch.uint8))


def test_captions_are_embedded_as_the_pipeline_does(
    backbone: CogVideoXBackbone, pipeline: CogVideoXPipeline
) -> None:
    everything = backbone.embed(CAPTIONS)
    assert everything.mask is None
    with torch.no_grad():
        wanted, negative = pipeline.encode_prompt(
            CAPTIONS, negative_prompt=[NEGATIVE] * 3, max_sequence_length=TEXT_TOKENS, device="cpu"
        )
    pair = backbone.guidance_pair(everything, backbone.embed([NEGATIVE]))
    torch.testing.assert_close(pair[0].embeds, negative, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pair[1].embeds, wanted, rtol=1e-5, atol=1e-5)
    each = backbone.guidance_pair(everything, backbone.embed(CAPTIONS[::-1]))[0]
    torch.testing.assert_close(each.embeds, everything.embeds.flip(0))


def test_a_caption_is_as_long_as_its_tokens(
    backbone: CogVideoXBackbone, folder: Path, tmp_path: Path
) -> None:
    longest = " ".join("a" * (TEXT_TOKENS - 1))
    assert backbone.check_captions([longest, "", "b"]) == []
    assert backbone.embed([longest]).embeds.shape[1] == TEXT_TOKENS
    problems = backbone.check_captions(["fine", longest + " a"])
    assert len(problems) == 1
    assert "13 tokens; at most 12" in problems[0]
    with pytest.raises(InputError, match="13 tokens"):
        backbone.embed([longest + " a"])
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").symlink_to(folder / "transformer" / "config.json")
    assert CogVideoXBackbone.caption_problems(tmp_path, [longest + " a"]) == problems


def test_a_closed_vocabulary_is_in_small_letters(folder: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    for part in ("transformer", "vae", "text_encoder", "scheduler", "model_index.json"):
        (closed / part).symlink_to(folder / part)
    (closed / "tokenizer").symlink_to(BUNDLED / "tiny_latte" / "tokenizer")
    backbone = CogVideoXBackbone.from_pretrained(closed)
    captions = ["A RED star", "a red star"]
    assert backbone.check_captions(captions) == []
    assert CogVideoXBackbone.caption_problems(closed, captions) == []
    first, second = backbone.embed(captions).embeds
    assert torch.equal(first, second)
    (problem,) = backbone.check_captions(["a red dog", *captions])
    assert "'dog'" in problem


def test_predict_is_the_network(backbone: CogVideoXBackbone) -> None:
    x_t, t, conditioning = noise(2), torch.tensor([700, 20]), backbone.embed(CAPTIONS[:2])
    with torch.no_grad():
        together = backbone.predict(x_t, t, conditioning)
        for row in range(2):
            alone = backbone.predict(x_t[row : row + 1], float(t[row]), conditioning[row])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
        other = backbone.predict(x_t, t, conditioning[[1, 0]])
    assert (together - other).abs().max() > 0.01
    with pytest.raises(ValueError, match="a mask would do nothing"):
        backbone.predict(x_t[:1], 5, Conditioning(conditioning.embeds[:1], torch.ones(1, TEXT_TOKENS) > 0))


def test_projections_are_those_of_the_one_attention(backbone: CogVideoXBackbone) -> None:
    names = backbone.projections("motion")
    assert list(names) == ["q", "k", "v", "o"]
    assert names["q"] == [f"transformer_blocks.{block}.attn1.to_q" for block in range(2)]
    assert names["o"] == [f"transformer_blocks.{block}.attn1.to_out.0" for block in range(2)]
    layers = [backbone.network.get_submodule(name) for group in names.values() for name in group]
    assert all(isinstance(layer, nn.Linear) and layer.in_features == 32 for layer in layers)
    heard = []
    handle = layers[0].register_forward_hook(lambda module, args, output: heard.append(output.shape[1]))
    with torch.no_grad():
        backbone.predict(noise(1), 500, backbone.embed(["a"]))
    handle.remove()
    assert heard == [TEXT_TOKENS + 3 * 2 * 3]
    others: tuple[ProjectionKind, ...] = ("spatial", "cross")
    for kind in others:
        with pytest.raises(InputError, match=f"no {kind} attention apart from its motion attention"):
            backbone.projections(kind)


def test_patches_in_time_are_refused_before_weights_are_read(folder: Path, tmp_path: Path) -> None:
    for part in ("vae", "text_encoder", "tokenizer", "scheduler", "model_index.json"):
        (tmp_path / part).symlink_to(folder / part)
    (tmp_path / "transformer").mkdir()
    for file in (folder / "transformer").glob("*.safetensors"):
        (tmp_path / "transformer" / file.name).symlink_to(file)
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config | {"patch_size_t": 2}))
    with pytest.raises(InputError, match="patch_size_t=2"):
        CogVideoXBackbone.from_pretrained(tmp_path)


def test_a_tuned_adapter_is_on_in_its_window_and_fits_the_stock_pipeline(
    folder: Path, backbone: CogVideoXBackbone, tmp_path: Path
) -> None:
    backbone = deepcopy(backbone)
    settings, start = SamplerSettings(steps=5, guidance_scale=3.0), noise(1)  # t = 999, 799, ..., 199
    base = ours(backbone, start, settings)
    method = LoRA(backbone, Window(700), rank=2, alpha=6.0)
    assert LoRA.trainable_parameters(CogVideoXBackbone.from_pretrained(folder), rank=2) == 512
    training = TrainingSettings(steps=4, batch_size=2, optimizer=OptimizerSettings(learning_rate=0.05))
    reference = Example(noise(1).roll(1), backbone.embed(["a cat runs"]))
    result = fit(backbone, method, [reference], training, tmp_path, progress=False)
    assert (result.trained, len(result.losses)) == (512, 4)

    asked: list[float | None] = []

    def gate(t: float | None) -> bool:
        asked.append(t)
        return method.set_active(t)

    windowed = ours(backbone, start, settings, gate=gate)
    assert asked == [999, 799, 599, 399, 199, None]
    method.window = Window(0)
    everywhere = ours(backbone, start, settings, gate=method.set_active)
    assert (windowed - base).abs().max() > 1e-2
    assert (windowed - everywhere).abs().max() > 1e-2

    recipe = Recipe(["a cat runs"], 0, 4, 2, 0.05, 0.01, "adamw", {})
    save_adapter(tmp_path, backbone, method, recipe)
    pipeline = loaded(folder)
    pipeline.load_lora_weights(str(tmp_path))
    wanted = stock(pipeline, start, settings).transpose(1, 2)
    torch.testing.assert_close(everywhere, wanted, rtol=1e-4, atol=1e-4)
