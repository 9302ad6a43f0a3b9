"""Every method of motionexp/methods/, with the settings of its file in conf/method/; a short training."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
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


FEW_STEPS = {"absorber_steps": 2}
"""Arguments that short trainings need smaller than they are by default."""


@cache
def _settings_of(name: str) -> Mapping[str, Any]:
    return load([f"method={name}"]).method


def configured(name: str) -> dict[str, Any]:
    """The constructor's arguments that conf/method/NAME.yaml gives by default; of phases a few steps."""
    settings = {key: value for key, value in deepcopy(_settings_of(name)).items() if key != "_target_"}
    return {key: FEW_STEPS.get(key, value) for key, value in settings.items()}


def attach(name: str, backbone: Backbone, window: Window, **settings: Any) -> TuningMethod:
    return find_method(name)(backbone, window, **configured(name) | settings)


def change(method: TuningMethod, size: float = 0.1) -> None:
    """Move every tuned tensor away from the untrained state."""
    stream = torch.Generator().manual_seed(0)
    for tensor in method.state().values():
        tensor.add_(size * torch.randn(tensor.shape, generator=stream))


def stirred(method: TuningMethod) -> TuningMethod:
    """The method with its tensors and its auxiliary ones away from the untrained state."""
    change(method)
    stream = torch.Generator().manual_seed(1)
    for tensor in method.auxiliary.values():
        tensor.detach().add_(0.1 * torch.randn(tensor.shape, generator=stream))
    return method


def merged(backbone: Backbone, tensors: Mapping[str, Tensor]) -> Backbone:
    """A copy of the backbone with W + B A in place of W, at alpha = rank, for LoRAs of these tensors."""
    plain = deepcopy(backbone)
    with torch.no_grad():
        for name in tensors:
            if name.endswith(".lora_A.weight"):
                layer = name.removesuffix(".lora_A.weight")
                update = tensors[f"{layer}.lora_B.weight"] @ tensors[name]
                plain.network.get_submodule(layer).weight += update
    return plain


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
