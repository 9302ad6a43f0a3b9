"""Every method of motionexp/methods/, with the settings of its file in conf/method/; a short training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import motionexp.methods
from motionexp.config.compose import load
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import Recipe, find_method
from motionexp.methods.base import OptimizerSettings, TrainingSettings, TuningMethod
from motionexp.methods.training import Example, FitResult, fit

SETTINGS = TrainingSettings(steps=8, batch_size=2, seed=5, optimizer=OptimizerSettings(learning_rate=1e-2))
RECIPE = Recipe(["a cat runs"], 5, 8, 2, 1e-2, 0.01, "adamw", {"motionexp": "0.1.0"})


def holds_method(name: str) -> bool:
    try:
        return bool(find_method(name))
    except InputError:
        return False


(FOLDER,) = map(Path, motionexp.methods.__path__)
METHODS = sorted(path.stem for path in FOLDER.glob("*.py") if holds_method(path.stem))


def configured(name: str) -> dict[str, Any]:
    """The constructor's arguments that conf/method/NAME.yaml gives by default."""
    return {key: value for key, value in load([f"method={name}"]).method.items() if key != "_target_"}


def attach(name: str, backbone: Backbone, window: Window, **settings: Any) -> TuningMethod:
    return find_method(name)(backbone, window, **configured(name) | settings)


def change(method: TuningMethod, size: float = 0.1) -> None:
    """Move every tuned tensor away from the untrained state."""
    stream = torch.Generator().manual_seed(0)
    for tensor in method.state().values():
        tensor.add_(size * torch.randn(tensor.shape, generator=stream))


def copied(method: TuningMethod) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.state().items()}


def run(
    backbone: Backbone,
    examples: list[Example],
    folder: Path,
    method: str = "lora",
    settings: TrainingSettings = SETTINGS,
    low: float = 700,
    **kwargs: Any,
) -> tuple[FitResult, dict[str, Tensor]]:
    """Fit a new method and remove it; returns the result and the tuned tensors."""
    tuning = attach(method, backbone, Window(low))
    try:
        result = fit(backbone, tuning, examples, settings, folder, progress=False, **kwargs)
        return result, copied(tuning)
    finally:
        tuning.remove()


def interrupt_at(step: int) -> Callable[[int], None]:
    def on_preview(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_preview
