"""Blocks that wait in main memory, or whose weights have fewer bits: what is computed, and what is where."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks import apply_layerwise_casting
from torch import Tensor, nn

from motionexp.backbones.block_weights import STORED, WaitingBlock
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.hooks import Hooks, activation_hooks
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.methods.base import TuningMethod
from motionexp.methods.full_rank import FullRank
from motionexp.methods.lora import LoRA
from motionexp.methods.lora_stack import LoRAStack
from motionexp.methods.step import Step
from tests.support.tiny_families import FAMILIES, Family

ON_DEVICE: set[WaitingBlock] = set()
MOST: list[int] = []


class NoStream:
    """Stands for a stream of CUDA: what it is asked for is done already."""

    def __init__(self, *device: torch.device) -> None: ...
    def wait_stream(self, stream: "NoStream") -> None: ...
    def wait_event(self, event: bool) -> None: ...
    def record_event(self) -> bool:
        return True


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many blocks were on the device, time after time. A block that waits holds no usable number."""
    fetch, start, give_back = WaitingBlock.fetch, WaitingBlock.start_copies, WaitingBlock.give_back

    def count(block: WaitingBlock, is_there: bool) -> None:
        (ON_DEVICE.add if is_there else ON_DEVICE.discard)(block)
        MOST.append(len(ON_DEVICE))

    def counted_start(block: WaitingBlock, computing: Any) -> None:
        start(block, computing)
        block._copies = [tensor.clone() for tensor in block._copies]
        count(block, True)

    def counted_fetch(block: WaitingBlock) -> None:
        count(block, True)
        fetch(block)

    def emptied(block: WaitingBlock) -> None:
        give_back(block)
        for table, name, tensor in block.places:
            worthless = torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor * 0
            is_weight = isinstance(tensor, nn.Parameter)
            table[name] = nn.Parameter(worthless, requires_grad=False) if is_weight else worthless
        count(block, False)

    monkeypatch.setattr(WaitingBlock, "fetch", counted_fetch)
    monkeypatch.setattr(WaitingBlock, "start_copies", counted_start)
    monkeypatch.setattr(WaitingBlock, "give_back", emptied)
    monkeypatch.setattr(torch.cuda, "Stream", NoStream)
    monkeypatch.setattr(torch.cuda, "current_stream", NoStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    MOST.clear()
    yield MOST
    ON_DEVICE.clear()


def conditioning(family: Family) -> Conditioning:
    embeds = torch.randn(2, family.captions[1], 16, generator=torch.Generator().manual_seed(0))
    return Conditioning(embeds, pooled=torch.ones(2, 16))


def attached(backbone: PipelineBackbone, kind: type[TuningMethod], **settings: Any) -> TuningMethod:
    """A method that is switched on, away from its untrained state."""
    method = kind(backbone, Window(0), **settings)
    method.switch(True)
    stream = torch.Generator().manual_seed(1)
    for parameter in method.parameters.values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=stream)
    return method


def outputs(
    family: Family, folder: Path | str, kind: type[TuningMethod], more: dict[str, Any], **settings: Any
) -> list[Tensor]:
    """A sampling step's output, a training step's, and all gradients."""
    backbone = family.kind.from_pretrained(folder, **settings)
    method = attached(backbone, kind, **more)
    noisy, captions = family.noisy(2), conditioning(family)
    with torch.no_grad():
        sampled = backbone.predict(noisy, 900, captions)
    trained = backbone.predict(noisy, 900, captions)
    trained.square().mean().backward()
    gradients = [value.grad for value in method.parameters.values() if value.grad is not None]
    assert {value.dtype for value in method.parameters.values()} == {torch.float32}
    return [sampled, trained.detach(), *gradients]


def trained_and_sampled(family: Family, folder: Path | str, **settings: Any) -> tuple[list[float], Tensor]:
    """The losses of three training steps, and latents that are sampled with the adapter in a window."""
    backbone = family.kind.from_pretrained(folder, **settings)
    method = attached(backbone, LoRA)
    optimizer, losses = torch.optim.AdamW(method.trained, lr=0.01), list[float]()
    latents, captions = family.noisy(2), Conditioning(conditioning(family).embeds)
    for t in (900.0, 600.0, 300.0):  # of two experts one in each step
        noise = latents.flip(0)
        step = Step.noised(backbone.schedule, latents, noise, torch.full((2,), t), captions)
        loss = method.loss(step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    method.window = Window(500)
    sampler = SamplerSettings(steps=4, guidance_scale=2.0)
    with torch.no_grad():
        negative = Conditioning(torch.zeros_like(captions.embeds))
        start = family.noisy(2)
        gate = method.set_active
        return losses, sample_latents(backbone, captions, negative, start, sampler, gate=gate)


@pytest.mark.parametrize("name", ["latte", "wan-experts"])
def test_training_and_gated_sampling_are_equal_or_near(name: str, tmp_path: Path, watched: list[int]) -> None:
    family, folder = FAMILIES[name], FAMILIES[name].save(tmp_path / "tiny")
    losses, latents = trained_and_sampled(family, folder)
    waiting = trained_and_sampled(family, folder, offload="group_stream", checkpointing=True)
    assert waiting[0] == losses
    assert torch.equal(waiting[1], latents)
    cast = trained_and_sampled(family, folder, network_precision="fp8", checkpointing=True)
    assert cast[0] == pytest.approx(losses, rel=0.05)
    assert cast[0] != losses
    assert (cast[1] - latents).norm() / latents.norm() < 0.1


METHODS: list[tuple[type[TuningMethod], dict[str, Any]]] = [
    (LoRA, {"rank": 2}),
    (FullRank, {}),
    (LoRAStack, {"starts": [0, 1]}),
]


def test_blocks_that_wait_compute_the_same_bits(
    family: Family, folder: Path | str, watched: list[int]
) -> None:
    kind, settings = METHODS[0]
    expected = outputs(family, folder, kind, settings)
    # Of U-Nets, where no block is fetched in advance, one of both.
    for offload, most in (("group", 1), ("group_stream", 2))[bool(family.kind.recomputed) :]:
        watched.clear()
        computed = outputs(family, folder, kind, settings, offload=offload, checkpointing=True)
        torch.testing.assert_close(computed, expected, rtol=0, atol=0)
        assert max(watched) <= most
        assert watched[-1] <= most - 1, "at the end at most a block that was fetched in advance is left"


@pytest.mark.parametrize(("kind", "settings"), METHODS[1:])
@pytest.mark.parametrize("name", ["latte", "wan-experts"])
def test_what_other_methods_train_stays_too(
    name: str, kind: type[TuningMethod], settings: dict[str, Any], tmp_path: Path, watched: list[int]
) -> None:
    family, folder = FAMILIES[name], FAMILIES[name].save(tmp_path / "tiny")
    expected = outputs(family, folder, kind, settings)
    computed = outputs(family, folder, kind, settings, offload="group_stream", checkpointing=True)
    torch.testing.assert_close(computed, expected, rtol=0, atol=0)


def test_a_pass_that_hooks_stop_leaves_the_blocks_in_order(tmp_path: Path, watched: list[int]) -> None:
    family, read = FAMILIES["wan"], list[Tensor]()
    folder, noisy = family.save(tmp_path / "tiny"), family.noisy(2)
    backbone = family.kind.from_pretrained(folder, offload="group_stream", checkpointing=True)
    plain = family.kind.from_pretrained(folder)
    for network in (plain, backbone):
        hooks = Hooks(features={0: read.append}, stop=True)  # type: ignore[dict-item]
        with activation_hooks(network, family.latents, hooks) as predict:
            assert predict(noisy, 900, conditioning(family)) is None
    assert torch.equal(*read)
    expected = plain.predict(noisy, 900, conditioning(family))
    assert torch.equal(backbone.predict(noisy, 900, conditioning(family)), expected)


@pytest.mark.parametrize(("name", "far"), [("latte", 0.15), ("wan-experts", 0.15), ("unet3d", 0.5)])
def test_weights_of_8_bits_compute_what_diffusers_casting_computes(
    name: str, far: float, tmp_path: Path
) -> None:
    family, folder = FAMILIES[name], FAMILIES[name].save(tmp_path / "tiny")
    cast = family.kind.from_pretrained(folder, network_precision="fp8", checkpointing=True)
    plain, rounded = family.kind.from_pretrained(folder), family.kind.from_pretrained(folder)
    theirs = family.kind.from_pretrained(folder)
    for run in theirs.block_runs(theirs.network):
        for block in run:
            apply_layerwise_casting(block, STORED, torch.float32, ("norm", "pos_embed", "patch_embed"))
    noisy, captions = family.noisy(2), conditioning(family)
    # 1. Samples are those of diffusers' hooks.
    with torch.no_grad():
        ours, exact, equal = (backbone.predict(noisy, 900, captions) for backbone in (cast, plain, theirs))
        assert torch.equal(ours, equal)
        assert 0 < (ours - exact).norm() / exact.norm() < far
        stored = dict(cast.network.named_parameters())
        assert {value.dtype for value in stored.values()} == {STORED, torch.float32}
        for key, value in rounded.network.named_parameters():
            value.copy_(stored[key].float())
    # 2. Gradients are those of weights that are rounded once.
    gradients = []
    for backbone in (cast, rounded):
        method = attached(backbone, LoRA)
        backbone.predict(noisy, 900, captions).square().mean().backward()
        gradients.append([value.grad for value in method.parameters.values() if value.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize(("bits", "far"), [("8bit", 0.05), ("4bit", 0.3)])
def test_gradients_pass_through_networks_of_fewer_bits(bits: Any, far: float, tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    family, folder = FAMILIES["wan"], FAMILIES["wan"].save(tmp_path / "tiny")
    expected = outputs(family, folder, LoRA, {})
    computed = outputs(family, folder, LoRA, {}, network_precision=bits)
    assert torch.equal(computed[0], computed[1])
    assert 0 < (computed[0] - expected[0]).norm() / expected[0].norm() < far
    if bits == "8bit":  # whose activations are rounded too
        return
    # Outputs and gradients are those of a plain network with weights that are rounded once.
    quantized = family.kind.from_pretrained(folder, network_precision=bits)
    plain = family.kind.from_pretrained(folder)
    layers = [name for name, layer in quantized.network.named_modules() if hasattr(layer, "quant_state")]
    assert len(layers) == 2 * 10  # of two blocks the projections of two attentions, and two of a feed-forward
    for name in layers:
        weight = quantized.network.get_submodule(name).weight
        whole = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        plain.network.get_submodule(name).weight.data.copy_(whole)
    method, noisy, captions = attached(plain, LoRA), family.noisy(2), conditioning(family)
    output = plain.predict(noisy, 900, captions)
    output.square().mean().backward()
    gradients = [value.grad for value in method.parameters.values() if value.grad is not None]
    torch.testing.assert_close(computed[1:], [output.detach(), *gradients], rtol=1e-3, atol=1e-5)
