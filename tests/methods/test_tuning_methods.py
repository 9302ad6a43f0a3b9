"""Which layers the methods tune, and the arithmetic of LoRA and FullRank."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from diffusers import LatteTransformer3DModel

from motionexp.backbones.latte import attention_projections
from motionexp.backbones.random_weights import LATTE_1
from motionexp.config.options import option_file
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import find_method
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.full_rank import FullRank, TunedLinear
from motionexp.methods.lora import LoRA
from tests.support.training_runs import METHODS, attach, change, configured, copied

WITH_PROJECTIONS = [
    name for name in METHODS if {"projections", "attention"} <= option_file("method", name).keys()
]
by_projections = pytest.mark.parametrize("name", WITH_PROJECTIONS)


def modules_of(method):
    return {re.sub(r"(\.lora_[AB])?\.(weight|bias)$", "", key) for key in method.parameters}


@by_projections
@pytest.mark.parametrize("attention", ["motion", "spatial", "cross"])
@pytest.mark.parametrize("projections", ["k", "vo", "qkvo"])
def test_it_tunes_the_chosen_projections_alone(name, projections, attention, backbone):
    layers = backbone.projections(attention)
    settings = {"projections": [*projections], "attention": attention}
    count = find_method(name).trainable_parameters(backbone, **configured(name) | settings)
    method = attach(name, backbone, Window(0), **settings)
    assert modules_of(method) == {layer for projection in projections for layer in layers[projection]}
    assert sum(parameter.numel() for parameter in method.parameters.values()) == count
    method.remove()


def test_lattes_low_rank_adapter_has_the_papers_size():
    layers = 2  # of Latte-1's 28, all alike
    with torch.device("meta"):
        network = LatteTransformer3DModel(**{**LATTE_1, "num_layers": layers})
    motion = attention_projections(network, "motion")
    latte = SimpleNamespace(network=network, motion_projections=lambda window: motion)
    share = 28 // layers
    assert share * LoRA.trainable_parameters(latte, rank=4, projections=("v", "o")) == 516_096
    assert share * LoRA.trainable_parameters(latte, rank=16, projections=[*"qkvo"]) == 8 * 516_096
    assert FullRank.trainable_parameters(latte, projections=("v",)) == layers * (1152 * 1152 + 1152)


@by_projections
@pytest.mark.parametrize("projections", [(), ("x",), ("v", "v"), ("v", "x")])
def test_bad_projections_are_refused_before_anything_is_attached(name, projections, backbone):
    with pytest.raises(InputError, match="projections="):
        attach(name, backbone, Window(0), projections=projections)
    attach(name, backbone, Window(0)).remove()


@pytest.mark.parametrize(
    ("bad", "named"),
    [({"rank": 0}, "rank=0"), ({"alpha": 0.0}, "alpha=0"), ({"alpha": math.nan}, "alpha=nan")],
)
def test_bad_sizes_are_refused(bad, named, backbone):
    with pytest.raises(InputError, match=named):
        LoRA(backbone, Window(0), **bad)
    LoRA(backbone, Window(0)).remove()


def weights_by_hand(method, scale):
    """The network's weights with the changes written out: W + s alpha / r B A, or W + s (tuned - W)."""
    state, network = method.state(), method.backbone.network
    weights = {}
    for name in modules_of(method):
        base = network.get_submodule(name).base_layer
        if isinstance(method, LoRA):
            low_rank = state[f"{name}.lora_B.weight"].double() @ state[f"{name}.lora_A.weight"].double()
            factor = scale * method.settings["alpha"] / method.settings["rank"]
            weights[f"{name}.weight"] = base.weight.double() + factor * low_rank
        else:
            for part in ("weight", "bias"):
                original = getattr(base, part).double()
                weights[f"{name}.{part}"] = original + scale * (state[f"{name}.{part}"].double() - original)
    return {name: value.float() for name, value in weights.items()}


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0, 1.5])
@pytest.mark.parametrize(("method_type", "settings"), [(LoRA, {"rank": 3, "alpha": 6.0}), (FullRank, {})])
def test_scale_multiplies_the_change_of_the_weights(method_type, settings, scale, backbone, predict):
    method = method_type(backbone, Window(0), **settings)
    change(method)
    method.scale = scale
    assert method.scale == scale
    method.switch(True)
    ours = predict()
    weights = weights_by_hand(method, scale)
    method.remove()
    with torch.no_grad():
        for name, value in weights.items():
            backbone.network.get_parameter(name).copy_(value)
    assert (ours - predict()).abs().max() < 2e-5


def test_a_scaled_change_is_rounded_once_in_bf16():
    layer = TunedLinear(torch.nn.Linear(64, 64, bias=False).bfloat16(), torch.device("cpu"))
    original, tuned = layer.base_layer.weight, layer.tuned["weight"]
    with torch.no_grad():
        tuned += 1e-3 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    layer.is_on, layer.scale = True, 0.25
    expected = original.double() + 0.25 * (tuned.double() - original.double())
    # Interpolated in bf16, many of the weights would be others.
    assert (expected.bfloat16() == layer(torch.eye(64).bfloat16()).T).double().mean() > 0.99


def test_a_state_that_does_not_fit_changes_nothing(backbone):
    method = LoRA(backbone, Window(0), rank=2)
    change(method)
    before = copied(method)
    name = next(reversed(before))
    zeros = {key: torch.zeros_like(tensor) for key, tensor in before.items()}
    missing = {key: tensor for key, tensor in zeros.items() if key != name}
    for state, named in (
        (zeros | {name: torch.zeros(3, 3)}, rf"{name} .*\(3, 3\)"),
        (missing, rf"1 of {len(before)} tensors .*\({name}\)"),
        (zeros | {"other": torch.zeros(1)}, r"1 .*\(other\)"),
    ):
        with pytest.raises(InputError, match=named):
            method.load(state)
        assert all(torch.equal(before[key], tensor) for key, tensor in method.state().items())


def test_the_initial_state_comes_from_the_seed_and_the_modules_name_alone(backbone):
    states = []
    for projections, seed in ((("v", "o"), 5), (("q", "v"), 5), (("v", "o"), 6)):
        torch.manual_seed(len(states))
        method = LoRA(backbone, Window(0), projections=projections)
        method.reset(seed)
        states.append(copied(method))
        method.remove()
    value = backbone.projections("motion")["v"][0] + ".lora_A.weight"
    assert torch.equal(states[0][value], states[1][value])
    assert not torch.equal(states[0][value], states[2][value])
    bound = 1 / math.sqrt(states[0][value].shape[1])
    assert bound / 2 < states[0][value].abs().max() <= bound


@by_projections
def test_all_attentions_are_those_of_every_kind_together(name, backbone):
    counts = {
        attention: find_method(name).trainable_parameters(backbone, projections=["v"], attention=attention)
        for attention in ("motion", "spatial", "cross", "all")
    }
    assert counts.pop("all") == sum(counts.values())
    assert min(counts.values()) > 0


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="optimizer=sgd"):
        OptimizerSettings(name="sgd")
