"""LoRAs that are trained in one batch, against each trained alone."""

from dataclasses import replace

import pytest
import torch

from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.config.schema import BUNDLED
from motionexp.diffusion.schedule import Window
from motionexp.methods.adapters import load_adapter, save_adapter
from motionexp.methods.base import OptimizerSettings, TrainingSettings
from motionexp.methods.lora import LoRA
from motionexp.methods.lora_stack import LoRAStack, StackMember
from motionexp.methods.training import Example, fit, start_seed
from tests.support.training_runs import copied, interrupt_at

MODELS = {"tiny_latte": LatteBackbone, "tiny_cogvideox": CogVideoXBackbone, "tiny_unet3d": UNet3DBackbone}
SETTINGS = TrainingSettings(
    steps=2, batch_size=1, seed=5, optimizer=OptimizerSettings(learning_rate=1e-2), checkpoint_every=0
)
# Each place of a layer in a network: along frames, within a frame, and to the caption.
CHOSEN = {"rank": 2, "alpha": 3.0, "projections": ["v", "o"], "attention": "all"}


def examples_of(backbone):
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    captions = ["a red plain circle is moving on sand", "a striped blue square"]
    latents = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(1))
    return [Example(latents[i], backbone.embed([captions[i]]), f"video {i}") for i in range(2)]


def stack_of(backbone, examples):
    return LoRAStack(backbone, Window(300), [start_seed(5, [one]) for one in examples], **CHOSEN)


@pytest.mark.parametrize("model", [*MODELS, "tiny"])
def test_each_lora_of_a_stack_learns_what_it_learns_alone(model, request, tmp_path):
    if model == "tiny":  # with two draws in each step
        backbone, examples = map(request.getfixturevalue, ("backbone", "examples"))
        settings = replace(SETTINGS, steps=4, batch_size=2)
    else:
        backbone = MODELS[model].from_pretrained(BUNDLED / model, name=model)
        examples, settings = examples_of(backbone), SETTINGS
    # tiny_cogvideox has no attention but its motion attention; `all` is that then.
    alone = []
    for example in examples:
        method = LoRA(backbone, Window(300), **CHOSEN)
        result = fit(backbone, method, [example], settings, progress=False)
        alone.append((result.losses, copied(method)))
        method.remove()
    stack = stack_of(backbone, examples)
    together = fit(
        backbone, stack, examples, replace(settings, batch_size=2 * settings.batch_size), progress=False
    )
    assert together.trained == sum(value.numel() for _, state in alone for value in state.values())
    for number, (losses, state) in enumerate(alone):
        assert [step[number] for step in together.losses] == pytest.approx(losses, rel=1e-4)
        ours = stack.state_of(number)
        assert ours.keys() == state.keys()
        for name, value in state.items():
            # Adam's first steps are signs of gradients: rounding shows where a gradient is near zero.
            assert (ours[name] - value).abs().mean() < 2e-4, name
    # A member's file is that of a LoRA.
    save_adapter(tmp_path, backbone, StackMember(stack, 1))
    stack.remove()
    stored = load_adapter(tmp_path, backbone)
    assert (type(stored), stored.name, stored.settings) == (LoRA, "lora", CHOSEN)
    assert all(torch.equal(value, stack.state_of(1)[name]) for name, value in copied(stored).items())
    stored.remove()


def test_a_stack_is_off_at_first_and_continues_after_an_interrupt(backbone, examples, tmp_path):
    x, conditioning = examples[0].latents, examples[0].conditioning
    settings = replace(SETTINGS, steps=4, batch_size=2, preview_every=1)
    states = {}
    with torch.no_grad():
        base = backbone.predict(x, 900, conditioning)
    for name in ("whole", "interrupted"):
        stack = stack_of(backbone, examples)
        with torch.no_grad():
            assert torch.equal(backbone.predict(x, 900, conditioning), base)
        if name == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                fit(backbone, stack, examples, settings, tmp_path, on_preview=interrupt_at(2), progress=False)
        folder = tmp_path if name == "interrupted" else None
        result = fit(backbone, stack, examples, settings, folder, progress=False)
        states[name] = copied(stack), result.losses
        stack.remove()
    assert result.resumed_from == 2
    assert states["whole"][1] == states["interrupted"][1]
    assert all(torch.equal(value, states["whole"][0][key]) for key, value in states["interrupted"][0].items())
