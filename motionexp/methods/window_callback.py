"""A window in diffusers' own pipelines: a callback that switches a loaded LoRA on and off."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.utils.hooks import RemovableHandle

from motionexp.diffusion.schedule import TIMESTEPS, Window
from motionexp.errors import InputError
from motionexp.methods.adapters import window_of

NETWORKS = ("transformer", "transformer_2", "unet")
# A pipeline's sigmas are fp32, and t = 1000 sigma; the bounds of a window are round numbers.
ROUNDING = 1e-3


def window_callback(
    adapter: str | Path | Window, pipeline: Any = None, *, adapter_name: str | None = None
) -> "WindowCallback":
    """Return `callback_on_step_end` of a diffusers pipeline: its LoRA acts in the adapter's window alone.

    For instance `pipe(..., callback_on_step_end=motionexp.window_callback("outputs/adapter", pipe))`, after
    `pipe.load_lora_weights`. The LoRA is on in exactly those steps in which motionexp's sampler has it on:
    at low <= t <= high, t = 1000 sigma for flow matching. Other LoRAs, and the weights of
    `pipe.set_adapters`, stay as they are.

    Args:
        adapter: a file or folder of motionexp, in any of its formats; or a window, for a LoRA of others.
        pipeline: whose network is to be watched. diffusers calls back after a step: a window that ends below
            1000, or a soft one, has to be set before the first step. It can be left out for others.
        adapter_name: of the LoRA in the pipeline, if it has several.

    Raises:
        InputError: the adapter has no window, or needs `pipeline`. The callback raises InputError if no such
            LoRA is loaded or it is fused, and if it was not as the window has it in the first step.
    """
    window = adapter if isinstance(adapter, Window) else window_of(adapter)
    if 0 < window.low < 1:
        raise InputError(f"window [{window.low:g}, {window.high:g}]: timesteps are from 0 to 1000, no shares")
    if pipeline is None and (window.knots or window.high < TIMESTEPS):
        raise InputError(
            f"window [{window.low:g}, {window.high:g}]{' (soft)' * bool(window.knots)}: it has to be set"
            " before the first step: window_callback(adapter, pipeline)"
        )
    callback = WindowCallback(window, adapter_name)
    if pipeline is not None:
        callback.watch(pipeline)
    return callback


class WindowCallback:
    """See `window_callback`. `weight` is how strongly the LoRA acts now: 1 as it was loaded, 0 off."""

    def __init__(self, window: Window, adapter_name: str | None = None) -> None:
        self.window, self.adapter_name, self.weight = window, adapter_name, 1.0
        self._loaded: dict[tuple[LoraLayer, str], float] = {}  # the scale of each layer at weight 1
        self._begun: torch.Tensor | None = None  # the timesteps of the video that is sampled now
        self._hooks: list[RemovableHandle] = []

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Set the LoRA for the step after this one, and after the last step for the next video's first."""
        times, index = step_times(pipeline.scheduler), step_index(pipeline.scheduler, timestep)
        if step == 0:
            self._check_first(pipeline, times[index])
        following = times[index + 1] if index + 1 < len(times) else times[index - step]
        self._set(pipeline, self.weight_at(following))
        return tensors

    def weight_at(self, t: float) -> float:
        """The window's weight at t, whose last digits are rounded."""
        nearest = min((self.window.low, self.window.high), key=lambda bound: abs(bound - t))
        return self.window.weight(nearest if abs(nearest - t) < ROUNDING else t)

    def watch(self, pipeline: Any) -> None:
        """Set the LoRA before the first step of each video too, by a hook on the pipeline's networks.

        It takes the place of a former callback for the same LoRA, such as that of an earlier call.
        """
        watching = _WATCHING.setdefault(pipeline, {})
        if (former := watching.get(self.adapter_name)) is not None:
            former.release()
        watching[self.adapter_name] = self

        def before(network: nn.Module, arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
            # A pipeline sets the scheduler's timesteps anew for each video.
            if pipeline.scheduler.timesteps is self._begun:
                return
            self._begun = pipeline.scheduler.timesteps
            timestep = settings["timestep"] if "timestep" in settings else arguments[1]
            index = step_index(pipeline.scheduler, torch.as_tensor(timestep).flatten()[0], is_done=False)
            self._set(pipeline, self.weight_at(step_times(pipeline.scheduler)[index]))

        self._hooks = [
            network.register_forward_pre_hook(before, with_kwargs=True) for network in networks_of(pipeline)
        ]

    def release(self) -> None:
        """Watch no longer, and let the LoRA act as it was loaded."""
        for hook in self._hooks:
            hook.remove()
        for (layer, name), scale in self._loaded.items():
            if layer.scaling.get(name) == scale * self.weight:  # else others have set it since
                layer.scaling[name] = scale
        self.weight = 1.0

    def _check_first(self, pipeline: Any, t: float) -> None:
        self._read_scales(pipeline)
        if self.weight != self.weight_at(t):
            raise InputError(
                f"in the first step (t = {t:g}) the LoRA had the weight {self.weight:g} and not"
                f" {self.weight_at(t):g}: write window_callback(adapter, pipeline), which sets it before"
            )

    def _set(self, pipeline: Any, weight: float) -> None:
        for layer, name in self._read_scales(pipeline):
            layer.scaling[name] = self._loaded[layer, name] * weight
        self.weight = weight

    def _read_scales(self, pipeline: Any) -> list[tuple[LoraLayer, str]]:
        """The layers of the LoRA, whose scales may have been set by others since the last step."""
        layers = self._layers(pipeline)
        if any(
            layer.scaling[name] != self._loaded.get((layer, name), math.nan) * self.weight
            for layer, name in layers
        ):
            self.weight, self._loaded = 1.0, {(layer, name): layer.scaling[name] for layer, name in layers}
        return layers

    def _layers(self, pipeline: Any) -> list[tuple[LoraLayer, str]]:
        """The layers of the LoRA, each with the LoRA's name in it."""
        layers = list(lora_layers(pipeline))
        names = sorted({name for layer in layers for name in layer.scaling})
        chosen = [self.adapter_name] if self.adapter_name is not None else names
        if not names or chosen[0] not in names:
            raise InputError(
                f"the pipeline has no LoRA{f' {self.adapter_name}' if names else ''}: load it before, with"
                " load_lora_weights or peft"
            )
        if len(chosen) > 1:
            raise InputError(f"the pipeline has several LoRAs ({', '.join(names)}): choose by adapter_name=")
        if any(layer.merged for layer in layers):
            raise InputError("the LoRA is fused into the weights: call the pipeline's unfuse_lora()")
        return [(layer, chosen[0]) for layer in layers if chosen[0] in layer.scaling]


_WATCHING: WeakKeyDictionary[Any, dict[str | None, WindowCallback]] = WeakKeyDictionary()
"""By pipeline, and by `adapter_name`: the callback that watches it."""


def networks_of(pipeline: Any) -> list[nn.Module]:
    """The denoising networks of a pipeline; Wan 2.2 has two."""
    return [network for name in NETWORKS if (network := getattr(pipeline, name, None)) is not None]


def lora_layers(pipeline: Any) -> Iterator[LoraLayer]:
    """The layers of a pipeline's networks that hold a LoRA."""
    for network in networks_of(pipeline):
        yield from (layer for layer in network.modules() if isinstance(layer, LoraLayer))


def step_times(scheduler: Any) -> list[float]:
    """t of each step of a diffusers scheduler, in motionexp's sense: 1000 is the noisiest."""
    if not (type(scheduler).__name__.startswith("FlowMatch") or scheduler.config.get("use_flow_sigmas")):
        return [float(t) for t in scheduler.timesteps]
    # Not its timesteps: UniPC's are rounded to integers.
    sigmas = scheduler.sigmas[: len(scheduler.timesteps)].double()
    if scheduler.config.get("invert_sigmas"):  # Mochi counts from noise to data
        sigmas = 1 - sigmas
    return [float(sigma) * TIMESTEPS for sigma in sigmas]


def step_index(scheduler: Any, timestep: Any, *, is_done: bool = True) -> int:
    """The place of a step among a scheduler's steps; `is_done`: the scheduler has made it."""
    if getattr(scheduler, "step_index", None) is not None:
        return int(scheduler.step_index) - is_done
    if not is_done and getattr(scheduler, "begin_index", None) is not None:
        return int(scheduler.begin_index)
    times = scheduler.timesteps.double().cpu()
    return int((times - float(timestep)).abs().argmin())
