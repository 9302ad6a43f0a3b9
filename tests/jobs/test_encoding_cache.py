"""Encodings are read back as they were made, and made anew for everything that they depend on."""

import pytest
import torch

from motionexp.diffusion.backbone import Conditioning
from motionexp.jobs.encoding_cache import EncodingCache
from tests.support.squares import Squares


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
