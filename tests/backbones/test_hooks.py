"""Activation hooks on every family, against the network's own arithmetic."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.hooks import Attended, Hooks, activation_hooks, find_block
from motionexp.diffusion.positions import position_embedding
from motionexp.errors import InputError
from tests.support.perturbed import perturbed_by_diffusers
from tests.support.tiny_families import Family

WITHOUT_POSITIONS = ("unet3d", "animatediff", "show1", "wan-experts")


@pytest.fixture(scope="module")
def backbone(family: Family, folder: Path) -> Backbone:
    loaded = family.kind.from_pretrained(folder, name="tiny", fps=6)
    if loaded.any_size:
        loaded.frames, loaded.height, loaded.width = family.video
    return loaded


@pytest.fixture
def call(family: Family, backbone: Backbone) -> Iterator[Any]:
    """`predict` on two videos, within hooks; the hooks leave no trace."""
    x_t, captions = family.noisy(2), backbone.embed(["a cat", "b"])

    def predict(x: Tensor = x_t, **hooks: Any) -> Tensor | None:
        with activation_hooks(backbone, family.latents, Hooks(**hooks)) as hooked:
            return hooked(x, 600.0, captions)

    predict.x_t = x_t  # type: ignore[attr-defined]
    with torch.no_grad():
        before = backbone.predict(x_t, 600.0, captions)
    yield predict
    with torch.no_grad():
        assert torch.equal(backbone.predict(x_t, 600.0, captions), before)


def block_with(backbone: Backbone, kind: str) -> int:
    return next(i for i, block in enumerate(backbone.blocks) if block.attentions.get(kind))  # type: ignore[call-overload]


def kinds_of(backbone: Backbone) -> list[Any]:
    return [kind for kind in backbone.attentions if kind != "cross"]


@torch.no_grad()
def test_attention_is_read_and_replaced(backbone, call):
    plain = call()
    for kind in kinds_of(backbone):
        seen, number = list[Attended](), block_with(backbone, kind)
        assert torch.equal(call(attention={(kind, number): seen.append}), plain)
        assert {part.query.shape for part in seen} == {part.value.shape for part in seen}
        assert [part.rows for part in seen[:2]] in (
            [slice(0, 2)],
            [slice(0, 2)] * 2,
            [slice(0, 1), slice(1, 2)],
        )
        assert {part.query.shape[2] for part in seen} == {call.x_t.shape[2]}

        def rebuilt(part: Attended) -> Attended:
            return part._replace(query=part.query.clone(), key=part.key.clone(), value=part.value.clone())

        torch.testing.assert_close(call(attention={(kind, number): rebuilt}), plain)

        def of_first(part: Attended) -> Attended:
            return part._replace(key=torch.zeros_like(part.key[:1]), value=torch.ones_like(part.value[:1]))

        assert not torch.equal(call(attention={(kind, number): of_first}), plain)


@torch.no_grad()
def test_attention_to_itself_alone_is_that_of_diffusers_perturbed_attention_guidance(backbone, call):
    kinds = kinds_of(backbone)
    number = next(
        i for i, block in enumerate(backbone.blocks) if all(block.attentions.get(kind) for kind in kinds)
    )
    ours = call(identity=[(kind, number) for kind in kinds])
    assert (ours - call()).abs().max() > 1e-3
    within = {name for kind in kinds for name in backbone.blocks[number].attentions[kind]}
    with perturbed_by_diffusers(backbone.network, within):
        torch.testing.assert_close(call(), ours, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_tokens_stand_where_their_latents_are(family, backbone, call):
    """A change of one frame changes the queries of that frame alone, in the first block."""
    changed = call.x_t.clone()
    changed[:, :, -1] += 1
    if backbone.blocks[0].outputs == ("down_blocks.0",):
        return  # the frames are mixed before the first attention
    for kind in kinds_of(backbone):
        seen = list[Attended]()
        call(attention={(kind, 0): seen.append}, stop=True)
        calls = len(seen)
        call(changed, attention={(kind, 0): seen.append}, stop=True)
        difference = (seen[calls].query - seen[0].query).abs().amax(dim=(0, 1, 3, 4))
        assert bool((difference[:-1] < 1e-5).all())
        assert difference[-1] > 1e-3


@torch.no_grad()
def test_features_are_read_and_replaced(family, backbone, call):
    plain = call()
    last = len(backbone.blocks) - 1
    for number in {last // 2, last}:
        seen = list[Tensor]()
        assert torch.equal(call(features={number: seen.append}), plain)
        (features,) = seen
        assert features.shape[0] == 2
        assert features.shape[2] == family.latents[1]
        height, width = features.shape[3:]
        assert abs(height / width - family.latents[2] / family.latents[3]) < 0.35
        torch.testing.assert_close(call(features={number: torch.clone}), plain)
        assert not torch.equal(call(features={number: torch.zeros_like}), plain)


def test_gradients_pass_through_and_the_pass_stops_early(backbone, call, monkeypatch):
    ran = list[str]()
    last = backbone.blocks[-1].outputs[0]
    handle = backbone.network.get_submodule(last).register_forward_hook(lambda *_: ran.append(last))
    kind = kinds_of(backbone)[0]
    number = block_with(backbone, kind)
    seen, x = list[Attended](), call.x_t.clone().requires_grad_()
    assert call(x, attention={(kind, number): seen.append}, stop=True) is None
    assert (ran == []) or number == len(backbone.blocks) - 1
    sum(part.query.square().sum() + part.key.sum() for part in seen).backward()
    assert x.grad is not None
    assert x.grad.abs().amax(dim=(1, 2, 3, 4)).min() > 0
    handle.remove()


def test_positions_are_read_and_replaced_with_gradients(family, backbone, call):
    captions = backbone.embed(["a"])
    if not backbone.positions:
        with pytest.raises(InputError, match="positional embedding"):
            position_embedding(backbone, family.latents, captions)
        with pytest.raises(InputError, match="positional embedding"), torch.no_grad():
            call(positions=[torch.zeros(1)])
        return
    positions = position_embedding(backbone, family.latents, captions)
    with torch.no_grad():
        torch.testing.assert_close(call(positions=positions), call())
    learnt = [tensor.requires_grad_() for tensor in positions]
    # In the context: CogVideoX's queries are rotated in place.
    with activation_hooks(backbone, family.latents, Hooks(positions=learnt)):
        output = backbone.predict(call.x_t, 600.0, backbone.embed(["a cat", "b"]))
        output.square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in learnt)
    with torch.no_grad():
        moved = call(positions=[1.5 * tensor for tensor in positions])
    assert (moved - output.detach()).abs().max() > 1e-4


def test_gradients_are_the_same_with_checkpointing(family, folder):
    if family.kind.__name__ not in ("LatteBackbone", "UNet3DBackbone", "MochiBackbone"):
        return  # one for each way of computing blocks again, and the attention that is called row by row
    gradients = []
    for checkpointing in (False, True):
        backbone = family.kind.from_pretrained(folder, name="tiny", fps=6, checkpointing=checkpointing)
        if backbone.any_size:
            backbone.frames, backbone.height, backbone.width = family.video
        kind = kinds_of(backbone)[0]
        number = block_with(backbone, kind)
        x, captions = family.noisy(1).requires_grad_(), backbone.embed(["a"])

        def doubled(part: Attended) -> Attended:
            return part._replace(value=2 * part.value)

        with activation_hooks(backbone, family.latents, Hooks({(kind, number): doubled})):
            backbone.predict(x, 600.0, captions).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_blocks_are_known_without_weights_and_a_wrong_one_is_refused(family, folder):
    backbone = family.kind.from_pretrained(folder, name="tiny", device="meta")
    count = len(backbone.blocks)
    assert count >= 1
    assert "network" not in vars(backbone)
    for number in (-1, count):
        with pytest.raises(InputError, match=rf"block={number}.*tiny.*{count} blocks"):
            find_block(backbone, number)
    if "spatial" not in backbone.attentions:
        with pytest.raises(InputError, match=r"block=0.*no spatial attention"):
            find_block(backbone, 0, "spatial")
    names = {name for block in backbone.blocks for names in block.attentions.values() for name in names}
    assert all(re.search(r"attn|attentions\.\d+$", name) for name in names)
