"""Full-rank tuning of projections of the motion attention, or of another."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.methods.base import (
    EVERYWHERE,
    OptimizerSettings,
    Stage,
    TunedAttention,
    TuningMethod,
    prediction_loss,
    projection_layers,
)


class FullRank(TuningMethod):
    """Weights and biases of chosen projections, tuned in full ("Motion in Early Timesteps", section 4.3).

    The tuned tensors stand beside the originals, which stay as they are; switching chooses between them.

    Args:
        backbone: with its motion attention.
        window: timesteps at which it is trained and applied.
        projections: non-empty subset of q, k, v, o.
        attention: which one is tuned, or all; the papers tune the motion attention.

    Raises:
        InputError: the projections are not such a subset.
    """

    key_prefix = ""

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        projections: Sequence[str] = ("v", "o"),
        attention: TunedAttention = "motion",
    ) -> None:
        modules = projection_layers(backbone, projections, window, attention)
        super().__init__(backbone, window)
        self._settings = {"projections": list(projections), "attention": attention}
        self._layers = {name: _TwoWeights(module) for name, module in modules.items()}
        for name, layer in self._layers.items():
            backbone.network.set_submodule(name, layer)

    @classmethod
    def trainable_parameters(
        cls,
        backbone: Backbone,
        window: Window = EVERYWHERE,
        *,
        projections: Sequence[str] = ("v", "o"),
        attention: TunedAttention = "motion",
    ) -> int:
        """Return the size of all weights and biases; see the base class."""
        layers = projection_layers(backbone, projections, window, attention).values()
        return sum(parameter.numel() for layer in layers for parameter in layer.parameters())

    @property
    def settings(self) -> dict[str, Any]:
        return self._settings

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            f"{name}.{part}": parameter
            for name, layer in self._layers.items()
            for part, parameter in layer.tuned.items()
        }

    def stages(self, optimizer: OptimizerSettings, steps: int) -> list[Stage]:
        loss = partial(prediction_loss, self.backbone)
        return [Stage(list(self.parameters.values()), loss, self.window, optimizer, steps)]

    def reset(self, seed: int) -> None:
        """Copy the base model's tensors; nothing is random here."""
        for layer in self._layers.values():
            for part, parameter in layer.tuned.items():
                parameter.detach().copy_(getattr(layer.base_layer, part))

    @property
    def scale(self) -> float:
        """Strength s of the changes: weights are original + s (tuned - original)."""
        return next(iter(self._layers.values())).scale

    @scale.setter
    def scale(self, value: float) -> None:
        for layer in self._layers.values():
            layer.scale = value

    def switch(self, on: bool) -> None:
        for layer in self._layers.values():
            layer.is_on = on

    def _detach(self) -> None:
        for name, layer in self._layers.items():
            self.backbone.network.set_submodule(name, layer.base_layer)


class _TwoWeights(nn.Module):
    """A linear layer with its own weights or with tuned ones beside them."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.tuned = nn.ParameterDict(
            {
                name: nn.Parameter(value.detach().float().clone())
                for name, value in base_layer.named_parameters()
            }
        )
        self.is_on = False
        self.scale = 1.0
        self.train(base_layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of x (..., in), in the precision of the original weights."""
        if not self.is_on:
            return self.base_layer(x)
        bias = None if self.base_layer.bias is None else self._effective("bias")
        return F.linear(x, self._effective("weight"), bias)

    def _effective(self, name: str) -> Tensor:
        original, tuned = getattr(self.base_layer, name), self.tuned[name]
        if self.scale != 1.0:
            tuned = torch.lerp(original.float(), tuned, self.scale)
        return tuned.to(original.dtype)
