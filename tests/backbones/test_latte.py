"""Latte behind our interface, against diffusers' pipeline and its parts."""

from pathlib import Path

import pytest
import torch
from diffusers import LattePipeline
from torch import Tensor, nn

from motionexp.backbones import latte
from motionexp.backbones.latte import LatteBackbone
from motionexp.diffusion.backbone import Conditioning
from motionexp.errors import InputError
from tests.support.tiny_models import save_tiny_pipeline

CAPTIONS = ["a cat", "A Red Ball rolls ", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny", learned_sigma=True)


@pytest.fixture(scope="module")
def backbone(folder: Path) -> LatteBackbone:
    return LatteBackbone.from_pretrained(folder, name="tiny", fps=6)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> LattePipeline:
    return LattePipeline.from_pretrained(folder, local_files_only=True)


def noisy(backbone: LatteBackbone, videos: int, frames: int = 4) -> Tensor:
    shape = backbone.latent_shape(frames, backbone.height, backbone.width)
    return torch.randn(videos, *shape, generator=torch.Generator().manual_seed(1))


def test_a_backbone_says_what_it_is(backbone: LatteBackbone, folder: Path) -> None:
    assert (backbone.name, backbone.source, backbone.revision) == ("tiny", str(folder), None)
    assert (backbone.frames, backbone.height, backbone.width, backbone.fps) == (4, 16, 16, 6)
    assert backbone.dtype == torch.float32
    assert backbone.max_caption_tokens == 120
    assert backbone.schedule.prediction_type == "v_prediction"
    assert not backbone.network.training
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())


def test_captions_are_embedded_as_the_pipeline_does(backbone: LatteBackbone, pipeline: LattePipeline) -> None:
    everything = backbone.embed(CAPTIONS)
    assert everything.mask is not None
    for row, caption in enumerate(CAPTIONS):
        with torch.no_grad():
            wanted, negative = pipeline.encode_prompt(caption, negative_prompt="dull", device="cpu")
        one = everything[row].trimmed()
        assert one.mask is None
        torch.testing.assert_close(one.embeds, wanted, rtol=1e-5, atol=1e-5)
        pair = backbone.guidance_pair(everything[row], backbone.embed(["dull"]))
        torch.testing.assert_close(pair[0].trimmed().embeds, negative, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(pair[1].embeds, wanted, rtol=1e-5, atol=1e-5)


def test_a_trimmed_negative_caption_is_refused(backbone: LatteBackbone) -> None:
    with pytest.raises(ValueError, match="do not trim"):
        backbone.guidance_pair(backbone.embed(["a long caption"]), backbone.embed([""]).trimmed())


def test_a_caption_is_as_long_as_its_tokens(backbone: LatteBackbone, folder: Path, tmp_path: Path) -> None:
    longest = " ".join("a" * 119)
    assert backbone.check_captions([longest, "", "b"]) == []
    assert backbone.embed([longest]).trimmed().embeds.shape[1] == 120
    problems = backbone.check_captions(["fine", longest + " a", longest + " b"])
    assert len(problems) == 2
    assert "121 tokens; at most 120" in problems[0]
    with pytest.raises(InputError, match="121 tokens"):
        backbone.embed([longest + " a"])
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    assert LatteBackbone.caption_problems(tmp_path, [longest + " a"]) == problems[:1]


def test_a_closed_vocabulary_refuses_other_words(backbone: LatteBackbone) -> None:
    bundled = "bundled:tiny_latte"
    known = ["a red plain star is moving on ice", "A RED star ", ""]
    assert LatteBackbone.caption_problems(bundled, known) == []
    (problem,) = LatteBackbone.caption_problems(bundled, ["a red dog, running", *known])
    for said in ("'dog,'", "'running'", "list words", "model=latte"):
        assert said in problem
    assert "'red'" not in problem
    # A vocabulary that spells words is open, whatever single sign it lacks.
    assert backbone.check_captions(["a dog 🐶 [runs]"]) == []


def test_predict_is_the_network_without_its_sigma(backbone: LatteBackbone, pipeline: LattePipeline) -> None:
    x_t, conditioning = noisy(backbone, 2), backbone.embed(CAPTIONS[:1]).trimmed().repeat(2)
    t = torch.tensor([700, 20])
    with torch.no_grad():
        whole = pipeline.transformer(x_t, t, conditioning.embeds, return_dict=False)[0]
        assert whole.shape[1] == 8
        torch.testing.assert_close(backbone.predict(x_t, t, conditioning), whole[:, :4])
        one = backbone.predict(x_t[1:], 20, conditioning[1])
    torch.testing.assert_close(one, whole[1:, :4], rtol=1e-4, atol=1e-5)


def test_captions_of_different_lengths_do_not_touch_each_other(backbone: LatteBackbone) -> None:
    x_t, conditioning = noisy(backbone, 3), backbone.embed(CAPTIONS)
    with torch.no_grad():
        together = backbone.predict(x_t, 500, conditioning)
        for row in range(3):
            alone = backbone.predict(x_t[row : row + 1], 500, conditioning[row])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
        # Without the mask the padding would be heard.
        unmasked = backbone.predict(x_t[2:], 500, Conditioning(conditioning.embeds[2:, :10]))
    assert (unmasked - together[2:]).abs().max() > 1e-3


def test_a_single_frame_passes_by_the_motion_attention(
    backbone: LatteBackbone, pipeline: LattePipeline
) -> None:
    x_t, conditioning = noisy(backbone, 1, frames=1), backbone.embed(CAPTIONS[:1]).trimmed()
    with torch.no_grad():
        output = backbone.predict(x_t, 500, conditioning)
        wanted = pipeline.transformer(
            x_t, torch.tensor([500]), conditioning.embeds, enable_temporal_attentions=False, return_dict=False
        )[0]
    torch.testing.assert_close(output, wanted[:, :4])


@pytest.mark.parametrize(
    ("kind", "prefix", "inputs"),
    [("motion", "temporal_transformer_blocks", 16), ("spatial", "transformer_blocks", 16)],
)
def test_projections_are_linear_layers_by_name(
    backbone: LatteBackbone, kind: latte.ProjectionKind, prefix: str, inputs: int
) -> None:
    names = backbone.projections(kind)
    assert list(names) == ["q", "k", "v", "o"]
    assert names["v"] == [f"{prefix}.{block}.attn1.to_v" for block in range(2)]
    assert names["o"] == [f"{prefix}.{block}.attn1.to_out.0" for block in range(2)]
    layers = [backbone.network.get_submodule(name) for group in names.values() for name in group]
    assert all(isinstance(layer, nn.Linear) and layer.in_features == inputs for layer in layers)


def test_cross_attention_reads_the_caption(backbone: LatteBackbone) -> None:
    heard = []
    layer = backbone.network.get_submodule(backbone.projections("cross")["k"][0])
    handle = layer.register_forward_hook(lambda module, args, output: heard.append(args[0].shape[1]))
    with torch.no_grad():
        backbone.predict(noisy(backbone, 1), 500, backbone.embed(["a"]))
    handle.remove()
    assert heard == [2]  # the letter and the end


def test_latent_shapes(backbone: LatteBackbone) -> None:
    assert backbone.latent_shape(4, 16, 24) == (4, 4, 4, 6)
    assert backbone.latent_shape(1, 8, 8) == (4, 1, 2, 2)
    for frames, height, width in ((3, 16, 16), (4, 20, 16), (4, 16, 0)):
        with pytest.raises(InputError, match="tiny"):
            backbone.latent_shape(frames, height, width)
    with pytest.raises(InputError, match="frames=3"):
        backbone.encode(torch.zeros(1, 3, 16, 16, 3, dtype=torch.uint8))


def test_conditionings_are_joined_and_split() -> None:
    first = Conditioning(torch.rand(2, 3, 5))
    second = Conditioning(torch.rand(1, 4, 5), torch.tensor([[True, True, False, False]]))
    both = Conditioning.cat([first, second])
    assert both.mask is not None
    assert len(both) == 3
    assert both.mask.tolist() == [[True] * 3 + [False]] * 2 + [[True, True, False, False]]
    assert both.trimmed().embeds.shape == (3, 3, 5)
    assert torch.equal(both[2].trimmed().embeds, second.embeds[:, :2])
    assert both[2].trimmed().mask is None
    assert torch.equal(both[[0, 2]].embeds[1], second.embeds[0])
    assert torch.equal(both[1:].repeat(2).embeds, both.embeds[[1, 1, 2, 2]])
    assert Conditioning.cat([first, first]).mask is None
