import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from diffusers import LatteTransformer3DModel
from torch.func import functional_call

from motionexp.backbones.latte import attention_projections
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.full_rank import FullRank
from motionexp.methods.lora import LoRA

METHODS = [LoRA, FullRank]
SUBSETS = [subset for size in (1, 2, 3, 4) for subset in combinations("qkvo", size)]


def change(method, seed=0, size=0.1):
    """Move every tuned tensor away from the untrained state."""
    g = torch.Generator().manual_seed(seed)
    for tensor in method.state().values():
        tensor.add_(size * torch.randn(tensor.shape, generator=g))


@pytest.fixture
def predict(backbone, inputs):
    """The network's output at t = 500, exactly as it comes out."""

    @torch.no_grad()
    def output():
        return backbone.predict(inputs.latents, 500, inputs.conditioning)

    return output


@pytest.mark.parametrize("method_type", METHODS)
def test_it_is_on_exactly_inside_its_window(method_type, backbone, predict):
    base = predict()
    method = method_type(backbone, Window(700))
    change(method)
    assert torch.equal(predict(), base), "attached, it starts switched off"
    for t, inside in ((0, False), (699, False), (700, True), (999, True), (None, False), (1000.0, True)):
        assert method.set_active(t) is inside
        assert torch.equal(predict(), base) is not inside
    method.window = Window(1000)
    assert not method.set_active(1000)
    assert torch.equal(predict(), base)


@pytest.mark.parametrize("method_type", METHODS)
def test_untrained_it_gives_the_base_models_output(method_type, backbone, predict):
    base = predict()
    method = method_type(backbone, Window(0))
    method.switch(True)
    assert torch.equal(predict(), base)
    change(method)
    assert not torch.equal(predict(), base)
    method.reset(seed=3)
    assert torch.equal(predict(), base)


@pytest.mark.parametrize("method_type", METHODS)
def test_removal_leaves_the_network_as_it_was(method_type, backbone, predict):
    network = backbone.network
    base = predict()
    attributes = set(vars(network))
    modules = dict(network.named_modules())
    tensors = {name: (tensor, tensor.clone()) for name, tensor in network.named_parameters()}
    method = method_type(backbone, Window(0), projections=("q", "k", "v", "o"))
    change(method)
    method.switch(True)
    method.scale = 0.5
    predict()
    method.remove()
    assert dict(network.named_modules()) == modules
    assert [*network.state_dict()] == [*tensors]
    for name, parameter in network.named_parameters():
        assert parameter is tensors[name][0]
        assert torch.equal(parameter, tensors[name][1])
        assert not parameter.requires_grad
    assert set(vars(network)) == attributes
    assert torch.equal(predict(), base)


@pytest.mark.parametrize("method_type", METHODS)
def test_references_share_one_network(method_type, backbone):
    kept = {name: parameter.data_ptr() for name, parameter in backbone.network.named_parameters()}
    for _ in range(3):
        method = method_type(backbone, Window(0))
        with pytest.raises(RuntimeError, match="another method is attached"):
            LoRA(backbone, Window(0))
        pointers = {parameter.data_ptr() for parameter in backbone.network.parameters()}
        assert pointers >= set(kept.values())
        method.remove()
    assert kept == {name: parameter.data_ptr() for name, parameter in backbone.network.named_parameters()}


@pytest.mark.parametrize("subset", SUBSETS, ids="".join)
@pytest.mark.parametrize("method_type", METHODS)
def test_it_tunes_the_chosen_projections_alone(method_type, subset, backbone):
    names = backbone.projections("motion")
    expected = {name for projection in subset for name in names[projection]}
    count = method_type.trainable_parameters(backbone, projections=subset)
    method = method_type(backbone, Window(0), projections=subset)
    tuned = {name.removesuffix(".weight").removesuffix(".bias") for name in method.parameters}
    assert {name.removesuffix(".lora_A").removesuffix(".lora_B") for name in tuned} == expected
    assert sum(parameter.numel() for parameter in method.parameters.values()) == count
    method.switch(True)
    wanting = {id(value) for value in backbone.network.parameters() if value.requires_grad}
    assert wanting == {id(value) for value in method.parameters.values()}
    method.remove()


def test_lattes_low_rank_adapter_has_the_papers_size():
    layers = 2  # of Latte-1's 28, all alike
    with torch.device("meta"):
        network = LatteTransformer3DModel(
            num_attention_heads=16,
            attention_head_dim=72,
            num_layers=layers,
            attention_bias=True,
            video_length=16,
            cross_attention_dim=1152,
            caption_channels=4096,
            norm_type="ada_norm_single",
            num_embeds_ada_norm=1000,
            sample_size=64,
            patch_size=2,
            in_channels=4,
            out_channels=8,
        )
    motion = attention_projections(network, "motion")
    latte = SimpleNamespace(network=network, motion_projections=lambda window: motion)
    share = 28 // layers
    assert share * LoRA.trainable_parameters(latte, rank=4, projections=("v", "o")) == 516_096
    assert share * LoRA.trainable_parameters(latte, rank=16, projections=[*"qkvo"]) == 8 * 516_096
    assert FullRank.trainable_parameters(latte, projections=("v",)) == layers * (1152 * 1152 + 1152)


@pytest.mark.parametrize("method_type", METHODS)
@pytest.mark.parametrize("projections", [(), ("x",), ("v", "v"), ("v", "x")])
def test_bad_projections_are_refused_before_anything_is_attached(method_type, projections, backbone):
    with pytest.raises(InputError, match="one or more of q, k, v, o"):
        method_type(backbone, Window(0), projections=projections)
    method_type(backbone, Window(0)).remove()


@pytest.mark.parametrize(
    ("bad", "says"),
    [({"rank": 0}, "rank=0"), ({"alpha": 0.0}, "alpha=0"), ({"alpha": math.nan}, "alpha=nan")],
)
def test_bad_sizes_are_refused(bad, says, backbone):
    with pytest.raises(InputError, match=says):
        LoRA(backbone, Window(0), **bad)
    LoRA(backbone, Window(0)).remove()


def weights_by_hand(method, scale):
    """The network's weights with the changes written out: W + s alpha / r B A, or W + s (tuned - W)."""
    state, network = method.state(), method.backbone.network
    weights = {}
    for name in {key.split(".lora_")[0].removesuffix(".weight").removesuffix(".bias") for key in state}:
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
@pytest.mark.parametrize("method_type", METHODS)
def test_scale_multiplies_the_change_of_the_weights(method_type, scale, backbone, predict):
    settings = {"rank": 3, "alpha": 6.0} if method_type is LoRA else {}
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


def test_alpha_over_rank_scales_the_update(backbone, predict):
    outputs = []
    for alpha in (4.0, 8.0):
        method = LoRA(backbone, Window(0), rank=4, alpha=alpha)
        change(method)
        method.scale = 4.0 / alpha
        method.switch(True)
        outputs.append(predict())
        method.remove()
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("method_type", METHODS)
def test_tuned_tensors_are_fp32_beside_a_bf16_network(method_type, bf16_backbone, inputs):
    backbone = bf16_backbone
    with torch.no_grad():
        base = backbone.predict(inputs.latents, 500, inputs.conditioning)
    method = method_type(backbone, Window(0))
    assert {value.dtype for value in method.parameters.values()} == {torch.float32}
    method.switch(True)
    backbone.predict(inputs.latents, 500, inputs.conditioning).square().mean().backward()
    gradients = [value.grad for value in method.parameters.values()]
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    before = {name: tensor.clone() for name, tensor in method.state().items()}
    change(method, size=1e-6)  # lost in bf16
    assert all(not torch.equal(before[name], tensor) for name, tensor in method.state().items())
    method.switch(False)
    with torch.no_grad():
        assert torch.equal(backbone.predict(inputs.latents, 500, inputs.conditioning), base)
    method.remove()
    assert {value.dtype for value in backbone.network.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("method_type", METHODS)
def test_state_goes_over_to_a_new_instance(method_type, backbone, predict):
    method = method_type(backbone, Window(0))
    change(method)
    method.switch(True)
    expected, state = predict(), {name: tensor.clone() for name, tensor in method.state().items()}
    method.remove()
    method = method_type(backbone, Window(0))
    method.load(state)
    method.switch(True)
    assert torch.equal(predict(), expected)


def test_a_state_that_does_not_fit_changes_nothing(backbone):
    method = LoRA(backbone, Window(0), rank=2)
    change(method)
    before = {name: tensor.clone() for name, tensor in method.state().items()}
    name = next(reversed(before))
    wrong_shape = {key: torch.zeros_like(tensor) for key, tensor in before.items()} | {
        name: torch.zeros(3, 3)
    }
    missing = {key: torch.zeros_like(tensor) for key, tensor in before.items() if key != name}
    unknown = {key: torch.zeros_like(tensor) for key, tensor in before.items()} | {"other": torch.zeros(1)}
    for state, says in (
        (wrong_shape, rf"{name} has shape \(3, 3\) where this network has"),
        (missing, rf"1 of {len(before)} tensors are missing \({name}\)"),
        (unknown, r"1 are unknown to this network \(other\)"),
    ):
        with pytest.raises(InputError, match=says):
            method.load(state)
        assert all(torch.equal(before[key], tensor) for key, tensor in method.state().items())


def test_the_initial_state_comes_from_the_seed_and_the_modules_name_alone(backbone):
    states = []
    for projections, seed in ((("v", "o"), 5), (("q", "v"), 5), (("v", "o"), 6)):
        torch.manual_seed(len(states))
        method = LoRA(backbone, Window(0), projections=projections)
        method.reset(seed)
        states.append({name: tensor.clone() for name, tensor in method.state().items()})
        method.remove()
    value = backbone.projections("motion")["v"][0] + ".lora_A.weight"
    assert torch.equal(states[0][value], states[1][value])
    assert not torch.equal(states[0][value], states[2][value])
    bound = 1 / math.sqrt(states[0][value].shape[1])
    assert bound / 2 < states[0][value].abs().max() <= bound


def test_gradients_are_those_of_the_weights_written_out(backbone, inputs):
    method = LoRA(backbone, Window(0), rank=2, alpha=3.0)
    change(method)
    method.switch(True)
    network = backbone.network
    backbone.predict(inputs.latents, 500, inputs.conditioning).square().mean().backward()
    name = backbone.projections("motion")["v"][-1]
    down, up = (method.parameters[f"{name}.lora_{part}.weight"] for part in "AB")
    weights = {key: value.requires_grad_() for key, value in weights_by_hand(method, 1.0).items()}
    method.remove()

    class Fused(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self):
            return backbone.predict(inputs.latents, 500, inputs.conditioning)

    output = functional_call(Fused(), {f"network.{key}": value for key, value in weights.items()}, ())
    output.square().mean().backward()
    gradient = weights[f"{name}.weight"].grad
    torch.testing.assert_close(up.grad, 1.5 * gradient @ down.T.detach(), rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(down.grad, 1.5 * up.T.detach() @ gradient, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("method_type", METHODS)
def test_all_attentions_are_those_of_every_kind_together(method_type, backbone):
    kinds = {"motion", "spatial", "cross"}
    one_by_one = {
        kind: method_type.trainable_parameters(backbone, projections=("v",), attention=kind)
        for kind in sorted(kinds)
    }
    together = method_type.trainable_parameters(backbone, projections=("v",), attention="all")
    assert set(backbone.attentions) == kinds
    assert min(one_by_one.values()) > 0
    assert together == sum(one_by_one.values())


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="optimizer=sgd: one of adamw, adam"):
        OptimizerSettings(name="sgd")


@pytest.mark.parametrize("method_type", METHODS)
@pytest.mark.parametrize("attention", ["spatial", "cross"])
def test_another_attention_is_tuned_in_place_of_the_motions(method_type, attention, backbone, predict):
    base = predict()
    wanted = backbone.projections(attention)
    method = method_type(backbone, Window(0), projections=("q", "o"), attention=attention)
    modules = {
        name.split(".lora_")[0].removesuffix(".weight").removesuffix(".bias") for name in method.parameters
    }
    assert modules == {*wanted["q"], *wanted["o"]}
    assert not modules & set(backbone.projections("motion")["q"])
    change(method)
    method.switch(True)
    assert not torch.equal(predict(), base)
    trained = sum(parameter.numel() for parameter in method.parameters.values())
    method.remove()
    counted = method_type.trainable_parameters(backbone, projections=("q", "o"), attention=attention)
    assert counted == trained
    assert torch.equal(predict(), base)
