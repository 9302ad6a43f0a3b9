"""Subject consistency against its definition in loops, DINO's features against transformers' network."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.transforms import Compose, Normalize, Resize
from transformers import ViTConfig, ViTModel

from motionexp.config.scoring_models import ScoringModels
from motionexp.errors import InputError
from motionexp.metrics import dino
from motionexp.metrics.dino import Dino, positions_of
from motionexp.metrics.scorer import Scorer
from motionexp.metrics.subject_consistency import subject_consistency

WIDTH, DEPTH, HEADS, PATCH = 24, 2, 2, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small vision transformer of random weights, as timm stores one."""
    import timm

    settings = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "patch_size": PATCH}
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224", num_classes=0, **settings)
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.2)
    folder = tmp_path_factory.mktemp("dino")
    (folder / "config.json").write_text(
        json.dumps({"architecture": "vit_base_patch16_224", "model_args": settings})
    )
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def network(folder):
    return Dino.load(str(folder))


def frames(height: int, width: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def in_transformers(network: Dino) -> ViTModel:
    """The same weights in transformers' network, which shares no code with timm's."""
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    config = ViTConfig(**sizes, intermediate_size=4 * WIDTH, layer_norm_eps=1e-6, patch_size=PATCH)
    weights = {"embeddings.position_embeddings": network.positions}
    names = {
        "cls_token": "embeddings.cls_token", "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
        "norm.": "layernorm.", ".attn.proj.": ".attention.o_proj.", "blocks.": "layers.",
        ".norm1.": ".layernorm_before.", ".norm2.": ".layernorm_after.",
    }  # fmt: skip
    for name, tensor in network.model.state_dict().items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours) if theirs[0] == "." or name.startswith(theirs) else name
        if ".attn.qkv." in name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                weights[name.replace(".attn.qkv.", f".attention.{part}_proj.")] = rows
        elif name != "pos_embed":
            weights[name] = tensor
    model = ViTModel(config, add_pooling_layer=False).eval()
    model.load_state_dict(weights)
    return model


def test_a_video_is_scored_as_the_definition_says():
    features = torch.nn.functional.normalize(
        torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), dim=1
    )
    scores = []
    for index in range(1, 5):
        to_first = max(0.0, torch.cosine_similarity(features[0], features[index], dim=0).item())
        to_previous = max(0.0, torch.cosine_similarity(features[index - 1], features[index], dim=0).item())
        scores.append((to_first + to_previous) / 2)
    assert min(scores) < 0.2  # so that cosines below 0 are among them
    np.testing.assert_allclose(subject_consistency(features), scores, atol=1e-6)
    np.testing.assert_allclose(subject_consistency(features[:1].repeat(3, 1)), 1)


@pytest.mark.parametrize("size", [(64, 64), (300, 300)])
def test_features_are_those_of_transformers_network(network, size):
    video = frames(*size)
    transform = Compose([Resize(224, antialias=False), Normalize(dino.MEAN, dino.DEVIATION)])
    pixels = torch.stack([transform(torch.tensor(frame / 255.0).permute(2, 0, 1).float()) for frame in video])
    with torch.no_grad():
        expected = in_transformers(network)(pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(
        network.embed_frames(video), torch.nn.functional.normalize(expected, dim=-1), atol=1e-5, rtol=0
    )


def cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    """The kernel of cubic convolution (Keys, 1981)."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    return np.where(x <= 1, near, np.where(x < 2, a * (x**3 - 5 * x**2 + 8 * x - 4), 0))


def weights_along(side: int, length: int) -> np.ndarray:
    """(length, side): what each place of a resized line takes of the line's places."""
    places = (np.arange(length) + 0.5) * side / (length + 0.1) - 0.5
    weights = np.zeros((length, side))
    for row, place in enumerate(places):
        for source in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            weights[row, np.clip(source, 0, side - 1)] += cubic(np.array(place - source))
    return weights


def test_positions_of_a_wide_video_are_resized_as_dino_does():
    stored = torch.randn(1, 1 + 4 * 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    square = stored[0, 1:].reshape(4, 4, 3).numpy()
    grid = np.einsum("ra,cb,abd->rcd", weights_along(4, 4), weights_along(4, 7), square)
    positions = positions_of(stored, 4, 7)
    np.testing.assert_allclose(positions[0, 1:].numpy(), grid.reshape(28, 3), atol=1e-12)
    assert torch.equal(positions[:, :1], stored[:, :1])
    assert positions_of(stored, 4, 4) is stored


def test_sizes_take_turns_and_a_part_of_a_patch_is_left_out(network):
    wide, square = frames(64, 101), frames(64, 64)
    first = network.embed_frames(wide)
    between = network.embed_frames(square)
    assert network.model.pos_embed.shape == (1, 1 + 14 * 14, WIDTH)
    assert torch.equal(network.embed_frames(wide), first)
    assert network.model.pos_embed.shape == (1, 1 + 14 * (224 * 101 // 64 // 16), WIDTH)
    assert not torch.equal(first[0], between[0])


def test_it_is_measured_where_it_is_named(folder, inputs):
    sample = inputs()
    scorer = Scorer(["subject_consistency"], ScoringModels(dino=str(folder), dino_revision=None))
    (measured,) = scorer.score(sample.frames, sample.reference, sample.edit).values()
    series = subject_consistency(Dino.load(str(folder)).embed_frames(sample.frames))
    assert measured["subject_consistency"].value == pytest.approx(series.mean())
    assert scorer.model_of("subject_consistency")
    one = scorer.score(sample.frames[:1], sample.reference, sample.edit)
    assert "frame" in one["subject_consistency"]["subject_consistency"].reason


@pytest.mark.parametrize("damage", ["weights", "config", "folder"])
def test_what_is_no_network_is_named(folder, tmp_path, damage):
    if damage != "folder":
        for name in dino.FILES:
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        (tmp_path / dino.FILES[damage == "weights"]).write_text("{}")
    path = str(tmp_path if damage != "folder" else tmp_path / "nothing")
    with pytest.raises(InputError, match=f"scoring.dino={path}"):
        Dino.load(path)


def test_a_network_that_is_not_here_names_the_command(monkeypatch):
    monkeypatch.setattr(dino, "snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    models = ScoringModels()
    with pytest.raises(InputError, match=rf"hf download {models.dino} .*{models.dino_revision}"):
        Dino.load(models.dino, models.dino_revision)
