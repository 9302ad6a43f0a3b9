"""MotionMatcher's loss beside a slow transcription that reads the attention where torch computes it."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from motionexp.backbones.animatediff import AnimateDiffBackbone
from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.show1 import Show1Backbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.config.compose import load
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.base import TrainingSettings
from motionexp.methods.motion_matcher import feature_blocks, matching_loss
from motionexp.methods.step import DrawKey, Step
from motionexp.methods.training import fit
from tests.support.tiny_animatediff import save_tiny_animatediff
from tests.support.tiny_models import save_tiny_unet3d
from tests.support.tiny_show1 import save_tiny_show1
from tests.support.training_runs import attach, stirred


def recorded(backbone, latents, t, conditioning, monkeypatch):
    """By the attention module's name, what torch's attention gets in a whole pass: q, k and the mask."""
    inputs, running, plain = {}, [], F.scaled_dot_product_attention

    def attention(query, key, value, attn_mask=None, **settings):
        inputs[running[-1]] = query, key, attn_mask
        return plain(query, key, value, attn_mask, **settings)

    handles = []
    for kind in ("motion", "spatial", "cross"):
        for name in backbone.projections(kind)["q"]:
            module = name.rpartition(".")[0]
            layer = backbone.network.get_submodule(module)
            handles.append(layer.register_forward_pre_hook(lambda *_, name=module: running.append(name)))
    running.append("another")
    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", attention)
        backbone.predict(latents, t, conditioning)
    for handle in handles:
        handle.remove()
    return inputs


def slow_map(query, key, mask):
    """The map of one attention, query by query and head by head: the mean over heads."""
    rows, heads, queries, size = query.shape
    maps = torch.zeros(rows, queries, key.shape[2])
    for row in range(rows):
        for head in range(heads):
            for place in range(queries):
                scores = key[row, head] @ query[row, head, place] / size**0.5
                if mask is not None:
                    scores = scores + mask[row].expand(heads, queries, -1)[head, place]
                maps = maps.index_put(
                    (torch.tensor(row), torch.tensor(place)),
                    torch.softmax(scores, dim=0) / heads,
                    accumulate=True,
                )
    return maps


def slow_loss(backbone, step, output, monkeypatch):
    """The loss, with DDIM's step written out for each row."""
    bars = backbone.schedule
    both = []
    for result in (output, step.target):
        rows = []
        for row, t in enumerate(step.t.tolist()):
            now, before = bars.alpha_bar(t), bars.alpha_bar(t - 1)
            # The tiny network predicts v.
            clean = now**0.5 * step.noisy[row] - (1 - now) ** 0.5 * result[row]
            noise = (1 - now) ** 0.5 * step.noisy[row] + now**0.5 * result[row]
            rows.append(before**0.5 * clean + (1 - before) ** 0.5 * noise)
        inputs = recorded(backbone, torch.stack(rows), step.t - 1, step.conditioning, monkeypatch)
        names = {"motion": "temporal_transformer_blocks.0.attn1", "cross": "transformer_blocks.0.attn2"}
        both.append([slow_map(*inputs[name]) for name in names.values()])
    return 2000 * sum((ours - theirs).square().mean() for ours, theirs in zip(*both, strict=True))


def test_the_loss_and_its_gradient_are_their_formula(backbone, step, monkeypatch):
    assert feature_blocks(backbone) == [0]
    original = deepcopy(backbone)
    method = stirred(attach("motion_matcher", backbone, Window(0)))
    method.switch(True)
    (loss,) = method.losses(step)
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in method.parameters.items()}
    for parameter in method.parameters.values():
        parameter.grad = None
    # Two networks in place of one that is switched: the tuned one predicts, the other has the maps.
    output = backbone.predict(step.noisy, step.t, step.conditioning)
    slow = slow_loss(original, step, output, monkeypatch)
    slow.backward()
    torch.testing.assert_close(loss.detach(), slow.detach(), rtol=1e-3, atol=0)
    expected = torch.cat([parameter.grad.flatten() for parameter in method.parameters.values()])
    actual = torch.cat([gradient.flatten() for gradient in gradients.values()])
    assert (actual - expected).norm() < 0.01 * expected.norm()


def test_the_true_step_has_no_loss(backbone, step):
    loss, gradient = matching_loss(backbone, step, step.target.clone(), 2000.0)
    assert loss.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


def test_recomputed_activations_change_no_loss(tiny_folder, backbone, examples):
    losses = []
    for network in (backbone, LatteBackbone.from_pretrained(tiny_folder, name="tiny", checkpointing=True)):
        method = attach("motion_matcher", network, Window(700))
        losses.append(fit(network, method, examples, TrainingSettings(steps=3), progress=False).losses)
        method.remove()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][2] != losses[0][0]


FAMILIES = {
    "unet3d": (UNet3DBackbone, save_tiny_unet3d),
    "animatediff": (AnimateDiffBackbone, save_tiny_animatediff),
    "show1": (Show1Backbone, save_tiny_show1),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_with_these_attentions_is_trained(family, tmp_path):
    backbone_class, save = FAMILIES[family]
    backbone = backbone_class.from_pretrained(save(tmp_path), name="tiny")
    (block,) = feature_blocks(backbone)
    assert backbone.blocks[block].outputs[0].startswith("down_blocks.")
    shape = backbone.latent_shape(3, backbone.height, backbone.width)
    latents, noise = torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(0))
    captions = backbone.embed(["a dog runs", "a cat"])
    keys = [DrawKey(0, "video", 0, row) for row in range(2)]
    step = Step.noised(backbone.schedule, latents, noise, torch.tensor([600, 0]), captions, keys)
    method = stirred(attach("motion_matcher", backbone, Window(0)))
    method.switch(True)
    (loss,) = method.losses(step)
    loss.backward()
    assert loss.item() > 0
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters.values())
    # The row at t = 0 has no step before it.
    (alone,) = method.losses(step.rows([1]))
    assert alone.item() == pytest.approx(0, abs=1e-6)


def test_its_own_window_is_the_default():
    assert load(["method=motion_matcher"]).tau == 500
    assert load(["method=motion_matcher", "tau=0", "sampling_tau=700"]).tau == 0
    with pytest.raises(InputError, match="method=motion_matcher: tiny_cogvideox has no spatial"):
        load(["model=tiny_cogvideox", "method=motion_matcher"])


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_out_of_range_is_refused(weight, backbone):
    with pytest.raises(InputError, match=r"method\.weight="):
        attach("motion_matcher", backbone, Window(0), weight=weight)
