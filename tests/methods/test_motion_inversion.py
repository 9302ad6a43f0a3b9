"""Motion Inversion's embeddings beside a slow transcription of their formulas, on every kind of U-Net."""

import pytest
import torch

from motionexp.backbones.animatediff import AnimateDiffBackbone
from motionexp.backbones.show1 import Show1Backbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.config.compose import load
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import load_adapter, save_adapter
from motionexp.methods.motion_inversion import EmbeddedLinear, frame_differences
from tests.support.tiny_animatediff import save_tiny_animatediff
from tests.support.tiny_models import save_tiny_unet3d
from tests.support.tiny_show1 import save_tiny_show1
from tests.support.training_runs import RECIPE, attach, change

PLACES, FRAMES, WIDTH = 2, 3, 4


def slow_output(layer, x, embedding, debiased):
    """One row of one place in one frame after the other: W (x + m) + b, (2 P, F, out)."""
    rows = []
    for row in range(len(x)):
        place, frames = row % PLACES, []
        for frame in range(FRAMES):
            m = embedding[frame] if embedding.ndim == 2 else embedding[place, frame]
            if debiased and embedding.ndim == 3:
                m = m - embedding[place, frame - 1] if frame > 0 else torch.zeros(WIDTH, dtype=m.dtype)
            frames.append(layer.weight @ (x[row, frame] + m) + layer.bias)
        rows.append(torch.stack(frames))
    return torch.stack(rows)


@pytest.mark.parametrize("shape", [(FRAMES, WIDTH), (PLACES, FRAMES, WIDTH)])
@pytest.mark.parametrize("debiased", [False, True])
def test_the_embeddings_are_their_formula(shape, debiased):
    stream = torch.Generator().manual_seed(0)
    x, weights = (torch.randn(*size, generator=stream).double() for size in ((4, 3, 4), (4, 3, 5)))
    base = torch.nn.Linear(WIDTH, 5).double()
    embedding = torch.nn.Parameter(torch.randn(shape, generator=stream).double())
    layer = EmbeddedLinear(base, embedding)
    layer.is_debiased = debiased
    assert torch.equal(layer(x), base(x)), "off, it is the base layer"
    layer.is_on = True
    slow = slow_output(base, x, embedding, debiased)
    torch.testing.assert_close(layer(x), slow)
    gradients = [torch.autograd.grad((out * weights).sum(), embedding)[0] for out in (layer(x), slow)]
    torch.testing.assert_close(*gradients)


def test_what_all_frames_share_is_not_in_what_samples():
    embedding = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(0))
    shared = torch.randn(5, 1, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(frame_differences(embedding + shared), frame_differences(embedding))


def test_training_has_the_value_embedding_itself_and_sampling_its_differences(backbone, step):
    method = attach("motion_inversion", backbone, Window(0))
    change(method, size=1.0)
    method.switch(True)
    (loss,) = list(method.losses(step))
    with torch.no_grad():
        sampled = backbone.predict(step.noisy, step.t, step.conditioning)
        for value in method.value.values():
            value.copy_(frame_differences(value))
    # Trained on the differences, the loss is that of what sampling computes.
    (debiased,) = list(method.losses(step))
    torch.testing.assert_close(debiased, (sampled - step.target).square().mean())
    assert abs(loss.item() - debiased.item()) > 1e-4


FAMILIES = {
    "unet3d": (UNet3DBackbone, save_tiny_unet3d),
    "animatediff": (AnimateDiffBackbone, save_tiny_animatediff),
    "show1": (Show1Backbone, save_tiny_show1),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_places_are_those_that_the_network_runs_at(family, tmp_path):
    backbone_class, save = FAMILIES[family]
    backbone = backbone_class.from_pretrained(save(tmp_path), name="tiny")
    backbone.frames = 3
    if family == "animatediff":
        backbone.height, backbone.width = 3 * backbone.pixels_per_latent, 5 * backbone.pixels_per_latent
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    captions = backbone.embed(["a dog runs", "a cat"])
    with torch.no_grad():
        base = backbone.predict(latents, 500, captions)
        method = attach("motion_inversion", backbone, Window(0))
        count = type(method).trainable_parameters
        method.switch(True)
        assert torch.equal(backbone.predict(latents, 500, captions), base)
        for parameter in method.value.values():
            parameter.add_(torch.randn(parameter.shape))
        changed = backbone.predict(latents, 500, captions)
        assert not torch.equal(changed, base)
        # Both videos of a batch get what each gets alone.
        alone = backbone.predict(latents[1:], 500, captions[1])
    torch.testing.assert_close(changed[1:], alone, rtol=1e-4, atol=1e-4)
    assert not any(name.startswith("mid_block") for name in method.parameters)
    sizes = sum(parameter.numel() for parameter in method.parameters.values())
    method.remove()
    assert count(backbone) == sizes


def test_an_adapter_of_another_size_is_refused(tmp_path):
    backbone = UNet3DBackbone.from_pretrained(save_tiny_unet3d(tmp_path / "unet"), name="tiny")
    method = attach("motion_inversion", backbone, Window(0))
    path = save_adapter(tmp_path / "adapter", backbone, method, RECIPE)
    method.remove()
    backbone.frames -= 1
    with pytest.raises(InputError, match="motion_query_key has shape"):
        load_adapter(path, backbone)
    attach("lora", backbone, Window(0)).remove()


def test_a_network_without_attention_along_time_is_refused():
    with pytest.raises(InputError, match="method=motion_inversion: tiny_cogvideox has no spatial"):
        load(["model=tiny_cogvideox", "method=motion_inversion"])
