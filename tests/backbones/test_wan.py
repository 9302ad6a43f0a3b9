"""What Wan has for itself: two experts, each for its own range of timesteps."""

import json
from pathlib import Path

import pytest
import torch

from motionexp.backbones import load_backbone
from motionexp.backbones.wan import WanBackbone, WanExpertsBackbone
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.evaluation import SampleSettings, count_adapter_steps
from motionexp.methods.adapters import load_adapter, save_adapter
from motionexp.methods.base import OptimizerSettings, TrainingSettings, TuningMethod
from motionexp.methods.external_lora import ExternalLoRA
from motionexp.methods.lora import LoRA
from motionexp.methods.training import Example, fit
from tests.support.tiny_families import FAMILIES, NEGATIVE, noise
from tests.support.tiny_flow import save_tiny_wan
from tests.support.training_runs import RECIPE

SHAPE = (1, 4, 2, 2, 4)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("models") / "experts", experts=True)


def test_what_is_not_wan_is_refused_before_weights_are_read(experts: Path, tmp_path: Path) -> None:
    for part in experts.iterdir():
        (tmp_path / part.name).symlink_to(part)
    index = json.loads((experts / "model_index.json").read_text())
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"expand_timesteps": True}))
    with pytest.raises(InputError, match="expand_timesteps=True"):
        load_backbone(tmp_path)
    with pytest.raises(InputError, match="transformer_2="):
        WanBackbone.from_pretrained(experts)


def test_a_wan_2_1_with_a_boundary_ratio_loads_as_one_network(experts: Path, tmp_path: Path) -> None:
    for part in experts.iterdir():
        if part.name not in ("transformer_2", "model_index.json"):
            (tmp_path / part.name).symlink_to(part)
    index = json.loads((experts / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"transformer_2": [None, None]}))
    assert index["boundary_ratio"] == 0.875
    assert type(load_backbone(tmp_path)) is WanBackbone


def test_each_row_goes_to_the_expert_of_its_timestep(experts: Path) -> None:
    backbone = WanExpertsBackbone.from_pretrained(experts)
    calls: list[tuple[str, int]] = []
    for name in ("transformer", "transformer_2"):
        backbone.network.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: calls.append((name, len(args[0])))
        )
    x_t, conditioning = noise(SHAPE).repeat(4, 1, 1, 1, 1), backbone.embed(["a cat"]).repeat(4)
    t = torch.tensor([1000.0, 400.0, 875.0, 874.9])
    with torch.no_grad():
        together = backbone.predict(x_t, t, conditioning)
        assert calls == [("transformer", 2), ("transformer_2", 2)]
        alone = [backbone.predict(x_t[:1], float(label), conditioning[0]) for label in t]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert [name for name, _ in calls[2:]] == ["transformer", "transformer_2", "transformer", "transformer_2"]


def test_an_adapter_of_one_expert_is_on_in_that_experts_steps(experts: Path) -> None:
    backbone = WanExpertsBackbone.from_pretrained(experts)
    backbone.schedule = FlowSchedule(12.0, "unipc", whole_labels=True)
    settings = SampleSettings(SamplerSettings(40, 1.0, sampler="unipc"))

    def on(method: TuningMethod) -> int:
        method.window = Window(0)  # as `sampling_tau=0` has it
        count = count_adapter_steps(backbone, method, settings)
        method.remove()
        return count

    # 26 of 40 steps are at t >= 875: the owners' shift moves them there.
    assert [on(LoRA(backbone, window)) for window in (Window(900), Window(0, 800), Window(700))] == [
        26,
        14,
        40,
    ]
    for component, steps in (("transformer", 26), ("transformer_2", 14)):
        sizes = {f"{component}.blocks.0.attn1.to_v": (2, 2.0)}
        assert on(ExternalLoRA(backbone, Window(0), sizes, 2, (), {})) == steps


WINDOWS = {
    "high": (Window(900), {"transformer"}),
    "low": (Window(200, 800), {"transformer_2"}),
    "across": (Window(500), {"transformer", "transformer_2"}),
}


@pytest.mark.parametrize("where", WINDOWS)
def test_an_adapter_holds_the_experts_that_its_window_reaches(
    experts: Path, tmp_path: Path, where: str
) -> None:
    window, reached = WINDOWS[where]
    backbone = WanExpertsBackbone.from_pretrained(experts)
    method = LoRA(backbone, window, rank=2, alpha=2.0)
    assert {name.split(".")[0] for name in method.parameters} == reached
    counted = LoRA.trainable_parameters(WanExpertsBackbone.from_pretrained(experts), window, rank=2)
    training = TrainingSettings(steps=3, batch_size=3, optimizer=OptimizerSettings(learning_rate=0.05))
    reference = Example(noise(SHAPE).roll(1), backbone.embed(["a cat runs"]), "video")
    assert fit(backbone, method, [reference], training, tmp_path, progress=False).trained == counted
    # Where batches reach into both, both were trained.
    assert all(value.abs().max() > 0 for name, value in method.state().items() if "lora_B" in name)
    save_adapter(tmp_path, backbone, method, RECIPE)
    method.window = Window(0)
    family, settings = FAMILIES["wan-experts"], SamplerSettings(6, 3.0)
    captions = backbone.embed([family.caption]), backbone.embed([NEGATIVE])
    tuned = sample_latents(backbone, *captions, noise(SHAPE), settings, gate=method.set_active)
    expected = family.stock(experts, noise(SHAPE), settings, adapter=tmp_path)
    torch.testing.assert_close(tuned, expected, rtol=1e-4, atol=1e-4)
    assert (family.stock(experts, noise(SHAPE), settings) - tuned).abs().max() > 1e-3
    method.remove()
    assert set(load_adapter(tmp_path, backbone).layers) == set(method.layers)
