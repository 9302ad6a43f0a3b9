"""The 3D U-Net behind our interface, against diffusers' pipeline and its parts."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import TextToVideoSDPipeline, UNet3DConditionModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from motionexp.backbones import load_backbone
from motionexp.backbones.checkpoint import weights_hash
from motionexp.backbones.text import caption_problems, closed_vocabulary, load_tokenizer
from motionexp.backbones.unet3d import UNet3DBackbone, attention_projections
from motionexp.data.shapes.grammar import vocabulary
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.errors import InputError
from motionexp.scripts.pretrain import clip_text
from motionexp.scripts.pretrain.unet3d import build
from tests.support.tiny_models import CLIP_TOKENS, save_tiny_unet3d

CAPTIONS = ["a red ball", "A Blue Cat 7", ""]
LETTERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_unet3d(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> UNet3DBackbone:
    return UNet3DBackbone.from_pretrained(folder, name="tiny", fps=6)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> TextToVideoSDPipeline:
    return TextToVideoSDPipeline.from_pretrained(folder, local_files_only=True)


def noisy(videos: int, frames: int = 5, height: int = 4, width: int = 4) -> Tensor:
    shape = (videos, 4, frames, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_a_backbone_says_what_it_is(backbone: UNet3DBackbone, folder: Path) -> None:
    assert (backbone.name, backbone.source, backbone.revision) == ("tiny", str(folder), None)
    assert (backbone.frames, backbone.height, backbone.width, backbone.fps) == (16, 16, 16, 6)
    assert backbone.max_caption_tokens == CLIP_TOKENS
    assert backbone.schedule.prediction_type == "epsilon"
    assert not any(module.training for module in backbone.network.modules())
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
    again = load_backbone(folder, device="cpu", precision="bf16")
    assert isinstance(again, UNet3DBackbone)
    assert (again.name, again.weights_hash) == ("tiny", backbone.weights_hash)
    assert again.dtype == torch.bfloat16


# against the stock pipeline


def stock(pipeline: TextToVideoSDPipeline, noise: Tensor, settings: SamplerSettings, caption: str) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    factor = 4
    latents: Tensor = pipeline(
        caption,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        num_frames=noise.shape[2],
        height=noise.shape[3] * factor,
        width=noise.shape[4] * factor,
        latents=noise.clone(),
        output_type="latent",
    ).frames
    return latents


@pytest.mark.parametrize(
    ("prediction_type", "guidance_scale", "frames"),
    [("epsilon", 4.0, 1), ("epsilon", 1.0, 4), ("v_prediction", 4.0, 6)],
)
def test_samples_equal_the_stock_pipeline(
    tmp_path: Path, prediction_type: str, guidance_scale: float, frames: int
) -> None:
    folder = save_tiny_unet3d(tmp_path, prediction_type=prediction_type)
    backbone = UNet3DBackbone.from_pretrained(folder)
    pipeline = TextToVideoSDPipeline.from_pretrained(folder, local_files_only=True)
    settings = SamplerSettings(steps=4, guidance_scale=guidance_scale)
    noise = noisy(1, frames, height=6, width=4)
    embedded, negative = backbone.embed(CAPTIONS[:1]), backbone.embed([""])
    ours = sample_latents(backbone, embedded, negative, noise, settings)
    expected = stock(pipeline, noise, settings, CAPTIONS[0])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    # The captions matter, and the frames to each other, else the comparison would show little.
    assert (stock(pipeline, noise, settings, CAPTIONS[1]) - expected).abs().max() > 0.01
    if frames > 1:
        alone = stock(pipeline, noise[:, :, :1], settings, CAPTIONS[0])
        assert (alone - expected[:, :, :1]).abs().max() > 0.01


def test_latents_that_cannot_be_halved_are_taken_as_the_pipeline_does(
    backbone: UNet3DBackbone, pipeline: TextToVideoSDPipeline
) -> None:
    assert backbone.latent_shape(3, 20, 12) == (4, 3, 5, 3)
    x_t, conditioning = noisy(2, 3, 5, 3), backbone.embed(CAPTIONS[:2])
    with torch.no_grad():
        wanted = pipeline.unet(x_t, 500, conditioning.embeds, return_dict=False)[0]
        torch.testing.assert_close(backbone.predict(x_t, 500, conditioning), wanted)


def test_captions_are_embedded_as_the_pipeline_does(
    backbone: UNet3DBackbone, pipeline: TextToVideoSDPipeline
) -> None:
    everything = backbone.embed(CAPTIONS)
    assert everything.mask is None
    for row, caption in enumerate(CAPTIONS):
        with torch.no_grad():
            wanted, negative = pipeline.encode_prompt(caption, "cpu", 1, True, negative_prompt="dull")
        negatives, conditioning = backbone.guidance_pair(everything[row], backbone.embed(["dull"]))
        torch.testing.assert_close(conditioning.embeds, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(negatives.embeds, negative, rtol=1e-5, atol=1e-5)
    one, _ = backbone.guidance_pair(everything, backbone.embed(["dull"]))
    each, _ = backbone.guidance_pair(everything, backbone.embed(["dull"] * 3))
    assert torch.equal(one.embeds, each.embeds)
    assert len(one) == 3


def test_each_video_has_its_own_timestep_and_caption(backbone: UNet3DBackbone) -> None:
    x_t, conditioning, t = noisy(3), backbone.embed(CAPTIONS), torch.tensor([700, 20, 999])
    with torch.no_grad():
        together = backbone.predict(x_t, t, conditioning)
        for row in range(3):
            alone = backbone.predict(x_t[row : row + 1], float(t[row]), conditioning[row])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    masked = Conditioning(conditioning.embeds, torch.ones(conditioning.embeds.shape[:2], dtype=torch.bool))
    with pytest.raises(ValueError, match="a mask would do nothing"):
        backbone.predict(x_t, 500, masked)


def test_nothing_in_it_is_random(backbone: UNet3DBackbone) -> None:
    """The temporal convolutions have dropout, whatever the configuration says."""
    assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in backbone.network.modules())
    x_t = noisy(1).requires_grad_()
    first, again = (backbone.predict(x_t, 500, backbone.embed([""])) for _ in range(2))
    assert torch.equal(first, again)


def test_latent_shapes(backbone: UNet3DBackbone) -> None:
    for frames in (1, 2, 16, 33, 64):
        assert backbone.latent_shape(frames, 16, 24) == (4, frames, 4, 6)
    for frames, height, width in ((0, 16, 16), (4, 18, 16), (4, 16, 0)):
        with pytest.raises(InputError, match="tiny"):
            backbone.latent_shape(frames, height, width)
    with pytest.raises(InputError, match="18 x 16"):
        backbone.encode(torch.zeros(1, 3, 18, 16, 3, dtype=torch.uint8))


# captions


def test_a_caption_is_as_long_as_its_tokens(backbone: UNet3DBackbone, folder: Path, tmp_path: Path) -> None:
    longest = " ".join("a" * (CLIP_TOKENS - 2))  # the start and the end count
    assert backbone.check_captions([longest, "", "Any Words 🐶"]) == []
    problems = backbone.check_captions(["fine", longest + " a"])
    assert len(problems) == 1
    assert f"has {CLIP_TOKENS + 1} tokens; at most {CLIP_TOKENS}" in problems[0]
    with pytest.raises(InputError, match=f"{CLIP_TOKENS + 1} tokens"):
        backbone.embed([longest + " a"])
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    assert UNet3DBackbone.caption_problems(tmp_path, [longest + " a"]) == problems


def test_a_closed_vocabulary_refuses_other_words(tmp_path: Path) -> None:
    folder = save_tiny_unet3d(tmp_path, words=["a", "red", "star", "left"])
    known = ["a red star", "A RED star left", ""]
    assert UNet3DBackbone.caption_problems(folder, known) == []
    # "s" and "le" are tokens: letters and parts of words are no words.
    (problem,) = UNet3DBackbone.caption_problems(folder, ["a red s, le dog", *known])
    for said in ("'s,'", "'le'", "'dog'", "list words", "model=latte"):
        assert said in problem
    assert "'red'" not in problem
    with pytest.raises(InputError, match="'dog'"):
        UNet3DBackbone.from_pretrained(folder).embed(["a dog"])


def test_a_tokenizer_in_the_hubs_two_files_is_read_and_counts_in_the_hash(
    folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    parts = copy / "tokenizer"
    model = json.loads((parts / "tokenizer.json").read_text())["model"]
    (parts / "tokenizer.json").unlink()
    (parts / "vocab.json").write_text(json.dumps(model["vocab"]))
    (parts / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]))
    before, after = (load_tokenizer(each)(CAPTIONS).input_ids for each in (folder, copy))
    assert after == before
    assert weights_hash(copy, ["tokenizer"]) != weights_hash(folder, ["tokenizer"])
    whole = weights_hash(copy, ["tokenizer"])
    (parts / "merges.txt").write_text("#version: 0.2\na b")
    assert weights_hash(copy, ["tokenizer"]) != whole


def test_the_bundled_tokenizer_names_the_bundled_worlds_words(tmp_path: Path) -> None:
    tokenizer = clip_text.build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, CLIPTokenizer.from_pretrained(tmp_path)):
        assert closed_vocabulary(each) == set(vocabulary())
        assert all(len(each(word).input_ids) == 3 for word in vocabulary())
        (problem,) = caption_problems(each, ["a star is moving ing"], clip_text.MAX_TOKENS)
        assert "does not know 'ing';" in problem


# attention


@pytest.mark.parametrize(
    ("kind", "owner", "attentions"),
    [
        ("motion", "TransformerTemporalModel", ("attn1", "attn2")),
        ("spatial", "Transformer2DModel", ("attn1",)),
        ("cross", "Transformer2DModel", ("attn2",)),
    ],
)
def test_projections_are_all_linear_layers_of_their_kind(
    backbone: UNet3DBackbone, kind: ProjectionKind, owner: str, attentions: tuple[str, ...]
) -> None:
    """Against a walk through the module tree by class name."""
    wanted: dict[str, set[str]] = {letter: set() for letter in LETTERS}
    for outer, module in backbone.network.named_modules():
        if type(module).__name__ != owner:
            continue
        for inner, part in module.named_modules():
            if type(part).__name__ == "Attention" and inner.rpartition(".")[2] in attentions:
                for letter, layer in LETTERS.items():
                    wanted[letter].add(f"{outer}.{inner}.{layer}")
    names = backbone.projections(kind)
    assert {letter: set(group) for letter, group in names.items()} == wanted
    assert list(names) == list(LETTERS)
    layers = [backbone.network.get_submodule(name) for group in names.values() for name in group]
    assert len({id(layer) for layer in layers}) == len(layers) == sum(map(len, wanted.values()))
    assert all(isinstance(layer, nn.Linear) for layer in layers)


def sequence_lengths(backbone: UNet3DBackbone, kind: ProjectionKind, letter: str) -> set[int]:
    """How many tokens the layers of one kind see at once, in a video of 5 frames."""
    heard: set[int] = set()
    handles = [
        backbone.network.get_submodule(name).register_forward_hook(
            lambda module, args, output: heard.add(args[0].shape[1])
        )
        for name in backbone.projections(kind)[letter]
    ]
    with torch.no_grad():
        backbone.predict(noisy(1), 500, backbone.embed(["a"]))
    for handle in handles:
        handle.remove()
    return heard


def test_attention_is_along_what_it_is_called_after(backbone: UNet3DBackbone) -> None:
    for letter in LETTERS:
        assert sequence_lengths(backbone, "motion", letter) == {5}
        assert sequence_lengths(backbone, "spatial", letter) == {16, 4}
    assert sequence_lengths(backbone, "cross", "q") == {16, 4}
    assert sequence_lengths(backbone, "cross", "k") == {CLIP_TOKENS}


@pytest.mark.parametrize(
    ("kind", "bundled", "modelscope"),
    [("motion", (16, 18_432), (34, 415_744)), ("spatial", (7, 8_192), (16, 199_680))],
)
def test_attention_is_counted(
    kind: ProjectionKind, bundled: tuple[int, int], modelscope: tuple[int, int]
) -> None:
    with torch.device("meta"):
        networks = (build(96), UNet3DConditionModel(sample_size=32))
    assert sum(parameter.numel() for parameter in networks[1].parameters()) == 1_411_233_860
    for network, counts in zip(networks, (bundled, modelscope), strict=True):
        names = attention_projections(network, kind)
        layers = [network.get_submodule(name) for letter in "vo" for name in names[letter]]
        assert len(names["v"]) == counts[0]
        assert sum(4 * (layer.in_features + layer.out_features) for layer in layers) == counts[1]
