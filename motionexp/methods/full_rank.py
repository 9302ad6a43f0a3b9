"""Full-rank tuning: the weights and biases of projections of the motion attention, or of another."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.methods.base import TunedAttention, TuningMethod, projection_layers


class FullRank(TuningMethod):
    """Weights and biases of chosen projections, tuned in full ("Motion in Early Timesteps", section 4.3).

    The tuned tensors are copies beside the originals, which stay unchanged; switching chooses between them.

    Cost of a step: one forward and backward pass. With AdamW a tuned number takes the memory of four: its
    copy, its gradient and two of the optimizer.

    Args:
        backbone: the model to tune.
        window: timesteps at which the method is trained and applied.
        projections: non-empty subset of q, k, v, o.
        attention: the kind of attention to tune, or all; the papers tune the motion attention.

    Raises:
        InputError: the projections are not such a subset.
    """

    layers: dict[str, "TunedLinear"]

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        projections: Sequence[str] = ("v", "o"),
        attention: TunedAttention = "motion",
    ) -> None:
        base_layers = projection_layers(backbone, projections, window, attention)
        layers = {name: TunedLinear(layer, backbone.device) for name, layer in base_layers.items()}
        settings = {"projections": list(projections), "attention": attention}
        super().__init__(backbone, window, layers, settings)

    @classmethod
    def layer_parameters(cls, layer: nn.Linear, **settings: Any) -> int:
        return sum(parameter.numel() for parameter in layer.parameters())

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            f"{name}.{part}": parameter
            for name, layer in self.layers.items()
            for part, parameter in layer.tuned.items()
        }

    def reset(self, seed: int) -> None:
        """Copy the base model's tensors; nothing is random here."""
        for layer in self.layers.values():
            for part, parameter in layer.tuned.items():
                parameter.detach().copy_(getattr(layer.base_layer, part))

    def _set_scale(self, value: float) -> None:
        for layer in self.layers.values():
            layer.scale = value

    def switch(self, on: bool) -> None:
        for layer in self.layers.values():
            layer.is_on = on


class TunedLinear(nn.Module):
    """A linear layer that computes with its original tensors, or with the tuned ones beside them.

    Args:
        base_layer: its weights may wait in main memory while it does not compute.
        device: of the tuned tensors.
    """

    def __init__(self, base_layer: nn.Linear, device: torch.device) -> None:
        super().__init__()
        self.base_layer = base_layer
        # fp32 copies, whatever the network's precision: bf16 would lose small updates.
        self.tuned = nn.ParameterDict(
            {
                name: nn.Parameter(value.detach().to(device, torch.float32, copy=True))
                for name, value in base_layer.named_parameters()
            }
        )
        self.is_on = False
        self.scale = 1.0
        self.train(base_layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of x (..., in), in the precision of x."""
        if not self.is_on:
            return self.base_layer(x)
        # Not cached: training updates the tuned tensors between calls.
        bias = None if self.base_layer.bias is None else self._effective("bias")
        bias = None if bias is None else bias.to(x.dtype)
        return F.linear(x, self._effective("weight").to(x.dtype), bias)

    def _effective(self, name: str) -> Tensor:
        """W + scale (tuned - W), in fp32."""
        tuned: Tensor = self.tuned[name]
        if self.scale == 1.0:
            return tuned
        return torch.lerp(getattr(self.base_layer, name).float(), tuned, self.scale)
