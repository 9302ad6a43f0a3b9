"""Low-rank adapters on projections of the motion attention, or of another."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window, generator
from motionexp.errors import InputError
from motionexp.methods.base import (
    EVERYWHERE,
    OptimizerSettings,
    Stage,
    TunedAttention,
    TuningMethod,
    prediction_loss,
    projection_layers,
)

ADAPTER = "motionexp"


class LoRA(TuningMethod):
    """Low-rank updates W + scale * alpha / rank * B A of chosen projections (Hu et al. 2021, section 4.1).

    peft puts the layers into the network, whether or not diffusers gives its class adapter methods. They are
    gated by switching the layers, never fused: fusing and unfusing changes the base weights' last bits.

    Args:
        backbone: with its motion attention.
        window: timesteps at which it is trained and applied.
        rank: of the update, from 1.
        alpha: the update is scaled by alpha / rank; above 0.
        projections: non-empty subset of q, k, v, o. v and o suffice for motion ("Timestep-Constrained
            One-Shot Video Motion Customization", table 4).
        attention: which one is tuned, or all; the papers tune the motion attention.

    Raises:
        InputError: rank, alpha or projections are out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        rank: int = 4,
        alpha: float = 4.0,
        projections: Sequence[str] = ("v", "o"),
        attention: TunedAttention = "motion",
    ) -> None:
        if rank < 1:
            raise InputError(f"rank={rank}: a whole number from 1")
        if not 0 < alpha < math.inf:
            raise InputError(f"alpha={alpha:g}: a number above 0")
        modules = projection_layers(backbone, projections, window, attention)
        settings = {"rank": rank, "alpha": alpha, "projections": list(projections), "attention": attention}
        self._attach(backbone, window, dict.fromkeys(modules, (rank, alpha)), settings)

    @classmethod
    def on_layers(cls, backbone: Backbone, window: Window, sizes: Mapping[str, tuple[int, float]]) -> "LoRA":
        """A LoRA on any layers of the network: (rank, alpha) by name; for adapters of other trainers."""
        method = cls.__new__(cls)
        method._attach(backbone, window, sizes, {"layers": len(sizes)})
        return method

    def _attach(
        self,
        backbone: Backbone,
        window: Window,
        modules: Mapping[str, tuple[int, float]],
        settings: dict[str, Any],
    ) -> None:
        super().__init__(backbone, window)
        self.key_prefix = backbone.key_prefix
        self._settings = settings
        self._scale = 1.0
        config = LoraConfig(
            # One pattern for the whole names: in a list, a name also stands for all that end in it.
            target_modules="|".join(re.escape(name) for name in modules),
            rank_pattern={f"^{re.escape(name)}": rank for name, (rank, _) in modules.items()},
            alpha_pattern={f"^{re.escape(name)}": alpha for name, (_, alpha) in modules.items()},
        )
        inject_adapter_in_model(config, backbone.network, adapter_name=ADAPTER)
        self._layers = {name: _lora_layer(backbone.network, name) for name in modules}
        for layer in self._layers.values():
            # peft makes them in the network's own precision, in which small updates are lost.
            layer.lora_A[ADAPTER].float()
            layer.lora_B[ADAPTER].float()
        self.reset(seed=0)
        self.switch(False)

    @classmethod
    def trainable_parameters(
        cls,
        backbone: Backbone,
        window: Window = EVERYWHERE,
        *,
        rank: int = 4,
        alpha: float = 4.0,
        projections: Sequence[str] = ("v", "o"),
        attention: TunedAttention = "motion",
    ) -> int:
        """Return the size of all A and B; see the base class. `alpha` does not matter."""
        layers = projection_layers(backbone, projections, window, attention).values()
        return sum(rank * (layer.in_features + layer.out_features) for layer in layers)

    @property
    def settings(self) -> dict[str, Any]:
        return self._settings

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            f"{name}.{part}.weight": getattr(layer, part)[ADAPTER].weight
            for name, layer in self._layers.items()
            for part in ("lora_A", "lora_B")
        }

    def stages(self, optimizer: OptimizerSettings, steps: int) -> list[Stage]:
        loss = partial(prediction_loss, self.backbone)
        return [Stage(list(self.parameters.values()), loss, self.window, optimizer, steps)]

    def reset(self, seed: int) -> None:
        """Draw A as a linear layer's weights are (from the seed and the module's name), and set B to zero."""
        for name, layer in self._layers.items():
            down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            draw = torch.empty(down.shape)
            nn.init.kaiming_uniform_(draw, a=math.sqrt(5), generator=generator("lora", seed, name))
            with torch.no_grad():
                down.copy_(draw)
                up.zero_()

    @property
    def scale(self) -> float:
        return self._scale

    @scale.setter
    def scale(self, value: float) -> None:
        self._scale = value
        for layer in self._layers.values():
            layer.set_scale(ADAPTER, value)

    def switch(self, on: bool) -> None:
        for layer in self._layers.values():
            if layer.disable_adapters == on:
                layer.enable_adapters(on)

    def _detach(self) -> None:
        network = self.backbone.network
        for name, layer in self._layers.items():
            network.set_submodule(name, layer.get_base_layer())
        del network.peft_config


def _lora_layer(network: nn.Module, name: str) -> LoraLayer:
    layer = network.get_submodule(name)
    if not isinstance(layer, LoraLayer):
        raise TypeError(f"peft left {name} as a {type(layer).__name__}")
    return layer
