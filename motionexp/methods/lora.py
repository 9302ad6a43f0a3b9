"""Low-rank adapters (LoRA) on projections of the motion attention, or of another."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window, generator
from motionexp.errors import InputError
from motionexp.methods.base import TunedAttention, TuningMethod, projection_layers, refuse_second_method

ADAPTER = "motionexp"
# diffusers reads its LoraConfig from here; without it, diffusers takes the rank for alpha.
DIFFUSERS_KEY = "lora_adapter_metadata"


class LoRA(TuningMethod):
    """Low-rank updates W + scale * alpha / rank * B A of chosen projections (Hu et al. 2021, section 4.1).

    A is (rank, in) and B is (out, rank). peft puts the layers into the network, whether or not diffusers
    gives the network's class adapter methods. The layers are switched, never fused into the weights: fusing
    and unfusing changes the last bits of the base weights.

    `is_plain`: the stored matrices alone say what the method does, at all timesteps of its window alike.

    Cost of a step: one forward and backward pass.

    Args:
        backbone: the model to tune.
        window: timesteps at which the method is trained and applied.
        rank: of the update, from 1.
        alpha: the update is scaled by alpha / rank; above 0.
        projections: non-empty subset of q, k, v, o. v and o suffice for motion ("Timestep-Constrained
            One-Shot Video Motion Customization", table 4).
        attention: the kind of attention to tune, or all; the papers tune the motion attention.

    Raises:
        InputError: rank, alpha or projections are out of range.
    """

    takes_sharded = True
    is_plain: ClassVar[bool] = True
    layers: dict[str, LoraLayer]

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
        self.check_size(rank, alpha)
        names = projection_layers(backbone, projections, window, attention)
        settings = {"rank": rank, "alpha": alpha, "projections": list(projections), "attention": attention}
        self._attach(backbone, window, dict.fromkeys(names, (rank, alpha)), settings)

    @staticmethod
    def check_size(rank: int, alpha: float) -> None:
        """Raise InputError for a rank below 1, or an alpha that is not above 0."""
        if rank < 1:
            raise InputError(f"rank={rank}: a whole number from 1")
        if not 0 < alpha < math.inf:
            raise InputError(f"alpha={alpha:g}: a number above 0")

    def _attach(
        self,
        backbone: Backbone,
        window: Window,
        sizes: Mapping[str, tuple[int, float]],
        settings: dict[str, Any],
    ) -> None:
        refuse_second_method(backbone)
        network = backbone.network
        # 1. peft replaces the layers of the network.
        config = LoraConfig(
            # One pattern for the whole names: a name in a list also matches every name that ends in it.
            target_modules="|".join(re.escape(name) for name in sizes),
            rank_pattern={f"^{re.escape(name)}": rank for name, (rank, _) in sizes.items()},
            alpha_pattern={f"^{re.escape(name)}": alpha for name, (_, alpha) in sizes.items()},
        )
        with ExitStack() as undo:
            undo.callback(_put_back, network, {name: network.get_submodule(name) for name in sizes})
            inject_adapter_in_model(config, network, adapter_name=ADAPTER)
            undo.pop_all()
        super().__init__(backbone, window, {name: network.get_submodule(name) for name in sizes}, settings)
        self.key_prefix = backbone.key_prefix
        # 2. peft creates A and B in the precision of the layer's weights, in which small updates are lost,
        #    and where those are now, which may be main memory.
        for layer in self.layers.values():
            layer.lora_A[ADAPTER].to(backbone.device, torch.float32)
            layer.lora_B[ADAPTER].to(backbone.device, torch.float32)
        # 3. Untrained and off, whatever peft has drawn.
        self.reset(seed=0)
        self.switch(False)

    @classmethod
    def layer_parameters(cls, layer: nn.Linear, *, rank: int = 4, **settings: Any) -> int:
        # A is (rank, in) and B is (out, rank).
        return rank * (layer.in_features + layer.out_features)

    @property
    def saved_layers(self) -> Mapping[str, LoraLayer]:
        """The layers whose tensors are `parameters`: all, unless a subclass trains others beside them."""
        return self.layers

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return tensors_of(self.saved_layers)

    def reset(self, seed: int) -> None:
        """Draw A as a linear layer's weights are drawn, from the seed and the layer's name; set B to zero."""
        for name, layer in self.layers.items():
            down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            with torch.no_grad():
                down.copy_(start_of_down(down.shape, seed, name))
                up.zero_()

    def _set_scale(self, value: float) -> None:
        for layer in self.layers.values():
            layer.set_scale(ADAPTER, value)

    def switch(self, on: bool) -> None:
        for layer in self.layers.values():
            # peft sets every parameter's requires_grad anew: only where something changes.
            if layer.disable_adapters == on:
                layer.enable_adapters(on)

    def file_metadata(self) -> dict[str, str]:
        """Return the LoraConfig that diffusers builds for each component of its pipeline, as JSON."""
        # By the pipeline's component; Wan with two experts has two.
        modules: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.key_prefix + name for name in self.saved_layers):
            component, _, module = name.partition(".")
            modules[component].append(module)
        rank, alpha = self.settings["rank"], self.settings["alpha"]
        # diffusers splits a key at its first dot: the component, then a field of LoraConfig.
        config = {
            f"{component}.{key}": value
            for component, names in modules.items()
            for key, value in (("r", rank), ("lora_alpha", alpha), ("target_modules", names))
        }
        return {DIFFUSERS_KEY: json.dumps(config)}

    def remove(self) -> None:
        super().remove()
        # peft would take a leftover config for a second adapter.
        del self.backbone.network.peft_config


def tensors_of(layers: Mapping[str, LoraLayer]) -> dict[str, nn.Parameter]:
    """A (rank, in) and B (out, rank) of each layer, by their names in an adapter file."""
    return {
        f"{name}.{part}.weight": getattr(layer, part)[ADAPTER].weight
        for name, layer in layers.items()
        for part in ("lora_A", "lora_B")
    }


def start_of_down(shape: Sequence[int], seed: int, name: str) -> torch.Tensor:
    """The untrained A (rank, in) of a LoRA on the layer of a name."""
    draw = torch.empty(tuple(shape))  # drawn on the CPU: the device must not change the numbers
    return nn.init.kaiming_uniform_(draw, a=math.sqrt(5), generator=generator("lora", seed, name))


def _put_back(network: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Undo what peft has done to a network before it failed."""
    for name, layer in layers.items():
        network.set_submodule(name, layer)
    vars(network).pop("peft_config", None)
