"""Tune-A-Video's sparse-causal attention beside a slow transcription, and what it tunes."""

from copy import deepcopy

import pytest
import torch
from diffusers.models.attention_processor import Attention

from motionexp.backbones.animatediff import AnimateDiffBackbone
from motionexp.backbones.show1 import Show1Backbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.config.compose import load
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.tune_a_video import SparseCausalLinear
from tests.support.tiny_animatediff import save_tiny_animatediff
from tests.support.tiny_models import save_tiny_unet3d
from tests.support.tiny_show1 import save_tiny_show1
from tests.support.training_runs import attach

VIDEOS, FRAMES, PLACES, HEADS, WIDTH = 2, 3, 4, 2, 6


def slow_attention(attention, x):
    """Each query of each head, one after the other, over the first and the previous frame."""
    q, k, v = (layer(x) for layer in (attention.to_q, attention.to_k, attention.to_v))
    size, rows = WIDTH // HEADS, []
    for video in range(VIDEOS):
        for frame in range(FRAMES):
            seen = [video * FRAMES, video * FRAMES + max(frame - 1, 0)]
            places = []
            for place in range(PLACES):
                heads = []
                for head in range(HEADS):
                    part = slice(head * size, (head + 1) * size)
                    query = q[video * FRAMES + frame, place, part]
                    keys = torch.cat([k[row, :, part] for row in seen])
                    values = torch.cat([v[row, :, part] for row in seen])
                    heads.append(torch.softmax(keys @ query / size**0.5, dim=0) @ values)
                places.append(torch.cat(heads))
            rows.append(torch.stack(places))
    return attention.to_out[0](torch.stack(rows))


def test_the_attention_is_its_formula():
    torch.manual_seed(0)
    attention = Attention(WIDTH, heads=HEADS, dim_head=WIDTH // HEADS).double()
    x, weights = torch.randn(2, VIDEOS * FRAMES, PLACES, WIDTH, dtype=torch.float64)
    x.requires_grad_()
    slow, plain = slow_attention(attention, x), attention(x)
    for name in ("to_k", "to_v"):
        setattr(attention, name, SparseCausalLinear(getattr(attention, name), FRAMES))
    assert torch.equal(attention(x), plain), "off, it is the base attention"
    attention.to_k.is_on = attention.to_v.is_on = True
    torch.testing.assert_close(attention(x), slow)
    gradients = [torch.autograd.grad((output * weights).sum(), x)[0] for output in (attention(x), slow)]
    torch.testing.assert_close(*gradients)


def test_it_tunes_queries_and_the_attention_along_time(backbone):
    method = attach("tune_a_video", backbone, Window(0))
    tuned = {name.rpartition(".")[0] for name in method.parameters}
    expected = {*backbone.projections("spatial")["q"], *backbone.projections("cross")["q"]}
    expected |= {name for names in backbone.projections("motion").values() for name in names}
    assert tuned == expected


FAMILIES = {
    "unet3d": (UNet3DBackbone, save_tiny_unet3d),
    "animatediff": (AnimateDiffBackbone, save_tiny_animatediff),
    "show1": (Show1Backbone, save_tiny_show1),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_acts_on_every_family_and_row_by_row(family, tmp_path):
    backbone_class, save = FAMILIES[family]
    backbone = backbone_class.from_pretrained(save(tmp_path), name="tiny")
    backbone.frames = 3
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    captions = backbone.embed(["a dog runs", "a cat"])
    with torch.no_grad():
        base = backbone.predict(latents, 500, captions)
        method = attach("tune_a_video", backbone, Window(0))
        method.switch(True)
        sparse = backbone.predict(latents, 500, captions)
        assert not torch.equal(sparse, base)
        alone = backbone.predict(latents[1:], 500, captions[1])
        torch.testing.assert_close(sparse[1:], alone, rtol=1e-4, atol=1e-4)
        method.switch(False)
        assert torch.equal(backbone.predict(latents, 500, captions), base)
    method.remove()


def test_without_sparse_attention_it_is_full_rank_tuning(backbone, step):
    """The rest of the method, beside tuned weights that are written into the network."""
    plain = deepcopy(backbone)
    method = attach("tune_a_video", backbone, Window(0))
    method.switch(True)
    with torch.no_grad():
        for name, parameter in method.parameters.items():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            plain.network.get_parameter(name).copy_(parameter)
        for layer in method.layers.values():
            layer.is_on = not isinstance(layer, SparseCausalLinear)
        ours, theirs = (
            network.predict(step.noisy, step.t, step.conditioning) for network in (backbone, plain)
        )
    torch.testing.assert_close(ours, theirs)


def test_a_network_without_these_attentions_is_refused():
    for model in ("tiny_cogvideox", "ltx"):
        with pytest.raises(InputError, match=f"method=tune_a_video: {model} has no spatial"):
            load([f"model={model}", "method=tune_a_video"])
