"""A LoRA tuned on a flow-matching model of random weights: what every family's test does with it."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from torch import Tensor

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.methods.adapters import Recipe, save_adapter
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.lora import LoRA
from motionexp.methods.training import Example, TrainingSettings, fit


def tuned_everywhere(
    backbone: PipelineBackbone,
    start: Tensor,
    settings: SamplerSettings,
    ours: Callable[..., Tensor],
    folder: Path,
) -> Tensor:
    """Samples of a copy of the backbone with a LoRA on at all timesteps, which is saved in `folder`.

    Sees on the way that a window asks at every step, and that base, windowed and whole samples differ.
    """
    backbone = deepcopy(backbone)
    base = ours(backbone, start, settings)
    method = LoRA(backbone, Window(700), rank=2, alpha=6.0)
    training = TrainingSettings(steps=4, batch_size=2, optimizer=OptimizerSettings(learning_rate=0.05))
    reference = Example(start.roll(1), backbone.embed(["a cat runs"]))
    fit(backbone, method, [reference], training, folder, progress=False)
    asked: list[float | None] = []

    def gate(t: float | None) -> bool:
        asked.append(t)
        return method.set_active(t)

    windowed = ours(backbone, start, settings, gate=gate)
    assert asked == [*backbone.schedule.timesteps(settings.steps), None]
    method.window = Window(0)
    everywhere = ours(backbone, start, settings, gate=method.set_active)
    assert (windowed - base).abs().max() > 1e-3
    assert (windowed - everywhere).abs().max() > 1e-3
    save_adapter(folder, backbone, method, Recipe(["a cat runs"], 0, 4, 2, 0.05, 0.01, "adamw", {}))
    return everywhere
