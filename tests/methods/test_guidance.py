"""What every guidance method must do: tests every method of motionexp/methods/, with no list by hand."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.config.compose import load
from motionexp.config.schema import BUNDLED
from motionexp.diffusion import inversion
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.methods.guidance import OPTIMIZERS, Injection
from tests.support.guidance_runs import GUIDANCE, configured, guidance, sampled
from tests.support.tiny_cogvideox import save_tiny_cogvideox
from tests.support.tiny_models import save_tiny_unet3d
from tests.support.training_runs import FOLDER, METHODS

ROOT = FOLDER.parent.parent
GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "guidance.json").read_text())
TWO_STEPS = SamplerSettings(2, 2.0)
every_method = pytest.mark.parametrize("name", GUIDANCE)


@pytest.fixture(autouse=True)
def _few_steps_of_inversion(monkeypatch):
    monkeypatch.setattr(inversion, "LEAST_STEPS", 4)


@pytest.fixture(scope="module")
def base(loaded):
    return sampled(loaded, None)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """A transformer with one attention over all tokens, and a U-Net, with a sample of each."""
    folder = tmp_path_factory.mktemp("families")
    transformer = CogVideoXBackbone.from_pretrained(save_tiny_cogvideox(folder / "dit", rotary=True))
    unet = UNet3DBackbone.from_pretrained(save_tiny_unet3d(folder / "unet"))
    unet.frames = 4
    return [(backbone, sampled(backbone, None, settings=TWO_STEPS)) for backbone in (transformer, unet)]


def test_a_method_is_a_module_and_an_option_of_one_name():
    assert {"ditflow", "injection", "inversion"} <= set(GUIDANCE)
    assert not set(GUIDANCE) & set(METHODS)
    for name in GUIDANCE:
        target = load([f"method={name}"]).method["_target_"]
        assert target.startswith(f"motionexp.methods.{name}.")
        assert (FOLDER / f"{name}.py").is_file()


@every_method
def test_off_it_is_the_base_model_and_it_leaves_no_trace(name, loaded, base):
    network = loaded.network
    attributes, modules = set(vars(network)), dict(network.named_modules())
    off = guidance(name, loaded)
    off.scale = 0.0
    assert torch.equal(sampled(loaded, off), base)
    for window in (Window(1000), Window(995, 999)):
        assert torch.equal(sampled(loaded, guidance(name, loaded, window)), base), "no step is in the window"
    guided = sampled(loaded, guidance(name, loaded))
    assert guided.isfinite().all()
    assert not torch.equal(guided, base)
    assert torch.equal(sampled(loaded, None), base)
    assert (set(vars(network)), dict(network.named_modules())) == (attributes, modules)
    hooks = [module for module in network.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert hooks == []
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in network.parameters()
    )


@every_method
def test_it_guides_exactly_the_steps_in_its_window(name, loaded, monkeypatch):
    steps = list[float]()
    method = guidance(name, loaded, Window(300, 700))
    move = method.move
    monkeypatch.setattr(method, "move", lambda x, t, guide: (steps.append(t), move(x, t, guide))[1])
    sampled(loaded, method)
    assert steps == [t for t in loaded.schedule.timesteps(4) if 300 <= t <= 700] != []


@every_method
def test_a_batch_changes_no_sample(name, loaded):
    method = guidance(name, loaded)
    together = sampled(loaded, method, (0, 1))
    for row in (0, 1):
        alone = sampled(loaded, method, (row,))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-3, atol=1e-4)


WITHOUT_LOSS = ["injection", "inversion", "time_to_move"]
ONE_GRADIENT = ["motionclone"]  # a step, which moves the next one's latents
OPTIMIZED = [name for name in GUIDANCE if name not in WITHOUT_LOSS + ONE_GRADIENT]


@pytest.mark.parametrize("name", OPTIMIZED)
def test_its_loss_falls_at_every_step(name, loaded):
    method = guidance(name, loaded)
    sampled(loaded, method)
    assert list(method.losses) == method.timesteps != []
    for losses in method.losses.values():
        assert len(losses) == 2
        assert losses[1] < losses[0]


@pytest.mark.parametrize("name", ONE_GRADIENT)
def test_its_loss_is_below_that_of_an_unguided_sampling(name, monkeypatch):
    backbone, last = LatteBackbone.from_pretrained(BUNDLED / "tiny_latte"), {}
    known = "a red circle is moving on grass"
    monkeypatch.setattr(
        backbone, "embed", partial(lambda embed, texts: embed([known for _ in texts]), backbone.embed)
    )
    for scale in (1.0, 1e-9):
        method = guidance(name, backbone, Window(700))
        method.scale = scale
        sampled(backbone, method, settings=SamplerSettings(10, 2.0))
        *_, last[scale] = (float(losses[0]) for losses in method.losses.values())
    assert last[1.0] < 0.98 * last[1e-9]


def test_a_method_without_a_loss_has_none(loaded):
    for name in WITHOUT_LOSS:
        method = guidance(name, loaded)
        sampled(loaded, method)
        assert method.losses == {}


@every_method
def test_samples_are_the_golden_ones(name, loaded):
    latents = sampled(loaded, guidance(name, loaded))
    numbers = [float(frame.abs().mean()) for frame in latents[0].unbind(1)]
    assert numbers == pytest.approx(GOLDEN.get(name), rel=1e-4), (  # two methods differ by 9e-4
        f"tests/golden/guidance.json: {name}: {numbers}"
    )


@every_method
def test_it_takes_other_families(name, families):
    for backbone, plain in families:
        sample = sampled(backbone, guidance(name, backbone, Window(400)), settings=TWO_STEPS)
        assert sample.isfinite().all()
        assert not torch.equal(sample, plain)


def test_a_soft_window_weighs_the_strength(loaded, monkeypatch):
    seen, injected = [], type(guidance("injection", loaded).injection)
    hooks = injected.hooks
    monkeypatch.setattr(
        injected, "hooks", lambda self, kv, strength: (seen.append(strength), hooks(self, kv, strength))[1]
    )
    method = guidance("injection", loaded, Window(0, 1000, ((0.0, 0.0), (1000.0, 1.0))))
    method.scale = 0.5
    sampled(loaded, method)
    guided = [t for t in loaded.schedule.timesteps(4) if t > 0]
    assert seen == pytest.approx([t / 2000 for t in guided])


def test_a_soft_window_weighs_the_optimizers_rate(loaded, monkeypatch):
    rates, adam = [], torch.optim.Adam
    monkeypatch.setitem(OPTIMIZERS, "adam", lambda leaves, lr: (rates.append(lr), adam(leaves, lr=lr))[1])
    window = Window(0, 1000, ((0.0, 0.0), (1000.0, 1.0)))
    method = guidance("flowmotion", loaded, window, first_rate=0.01, last_rate=0.01)
    method.scale = 0.5
    sampled(loaded, method)
    assert rates == pytest.approx([0.01 * t / 2000 for t in loaded.schedule.timesteps(4) if t > 0])


INJECTING = [name for name in GUIDANCE if "injection" in configured(name)]


@pytest.mark.parametrize("name", INJECTING)
def test_injected_keys_and_values_act_in_the_loss_and_in_the_sampling(name, loaded, monkeypatch):
    where, hooks = [], Injection.hooks

    def counted(self, *args):
        def counting(hook):
            return lambda part: (where.append(phase), hook(part))[1]

        phase = "loss" if is_moving else "sampling"
        return {place: counting(hook) for place, hook in hooks(self, *args).items()}

    monkeypatch.setattr(Injection, "hooks", counted)
    method = guidance(name, loaded, Window(700), injection=True)  # the first step alone
    move, is_moving = method.move, False

    def moved(*args):
        nonlocal is_moving
        is_moving = True
        x_t = move(*args)
        is_moving = False
        return x_t

    monkeypatch.setattr(method, "move", moved)
    sampled(loaded, method)
    # Frames and time have attention of their own. `nearest` asks no network for its loss.
    evaluations = 0 if name == "nearest" else max(map(len, method.losses.values()))
    assert where.count("loss") == 2 * evaluations
    assert where.count("sampling") == 2
