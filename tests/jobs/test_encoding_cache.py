"""Encodings are read back as they were made, and made anew for everything that they depend on."""

import pytest
import torch
from rich.console import Console

from motionexp.backbones import checkpoint, parts
from motionexp.diffusion.backbone import Conditioning
from motionexp.jobs.encoding_cache import EncodingCache
from motionexp.jobs.job import Job
from tests.support.squares import Squares
from tests.support.tiny_jobs import job_settings
from tests.support.tiny_models import FRAMES, SIZE


class Encoder:
    """Stands for a backbone whose encodings depend on its weights and its precision."""

    device = torch.device("cpu")

    def __init__(self, weights_hash, precision):
        self.weights_hash, self.calls = weights_hash, 0
        self.number = len(weights_hash) + len(precision) / 10

    def encode(self, frames):
        self.calls += 1
        return self.number * frames.float().mean((0, 1, 4))[None, None, None]

    def embed(self, captions):
        self.calls += 1
        embeds = self.number * torch.tensor([[[float(ord(letter))] for letter in captions[0]]])
        return Conditioning(embeds, embeds[..., 0] > embeds.mean(), embeds.sum(1))


FIRST = {"weights": "a", "precision": "fp32", "name": "one", "caption": "a cat"}


def encoded(folder, weights, precision, name, caption):
    encoder, reference = Encoder(weights, precision), Squares().read(name, 4, 16, 16)
    cache = EncodingCache(folder, encoder, precision)
    captions = cache.conditioning(caption)
    return [cache.latents(reference), captions.embeds, captions.mask, captions.pooled], encoder.calls


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        ({}, 0),
        ({"name": "two"}, 1),
        ({"caption": "a dog"}, 1),
        ({"weights": "bb"}, 2),
        ({"precision": "bfloat16"}, 2),
    ],
    ids=str,
)
def test_a_cached_encoding_is_what_the_encoder_gives(tmp_path, change, calls):
    encoded(tmp_path / "filled", **FIRST)
    cached, needed = encoded(tmp_path / "filled", **FIRST | change)
    expected, _ = encoded(tmp_path / "empty", **FIRST | change)
    assert needed == calls
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(cached, expected, strict=True))


def test_a_second_run_of_a_clip_reads_neither_text_encoder_nor_the_vaes_encoder(
    tmp_path, weights, monkeypatch
):
    """With another window, and an empty negative prompt; of the VAE what decodes is read, and no more."""
    read = []
    open_file = checkpoint.safe_open

    def load_part(kind, folder, *settings):
        read.append((folder.name, "all"))
        return whole(kind, folder, *settings)

    def opened(file, framework):
        content = open_file(file, framework=framework)
        return Listened(content, lambda name: read.append((file.parent.name, name)))

    whole = checkpoint.load_part
    monkeypatch.setattr(parts, "load_part", load_part)
    monkeypatch.setattr(checkpoint, "safe_open", opened)
    video, target = (FRAMES, SIZE, SIZE), "motionexp.backbones.latte.LatteBackbone"
    decoded = []
    for tau in (0.0, 700.0):
        read.clear()
        cfg = job_settings(target, weights, video, output=str(tmp_path), tau=tau, negative_prompt="")
        job = Job(cfg, Console(quiet=True))
        job.encode()
        latents = job.cache.latents(job.references[0])
        job.cache.conditioning(job.references[0].caption)
        decoded.append(job.backbone.decode(latents))
        if tau == 0.0:
            assert [part for part, name in read if name == "all"] == ["text_encoder", "vae"]
    assert {part for part, _ in read} == {"vae"}
    assert "all" not in {name for _, name in read}
    assert not [name for _, name in read if name.startswith(("encoder.", "quant_conv."))]
    assert torch.equal(*decoded)


class Listened:
    """An open safetensors file that tells which tensors are read."""

    def __init__(self, content, tell):
        self.content, self.tell = content, tell

    def __enter__(self):
        self.content.__enter__()
        return self

    def __exit__(self, *error):
        return self.content.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.content, name)

    def get_tensor(self, name):
        self.tell(name)
        return self.content.get_tensor(name)
