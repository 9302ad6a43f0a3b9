"""Several LoRAs that are trained in one batch, each on a reference of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.methods.base import (
    TunedAttention,
    TuningMethod,
    projection_layers,
    squared_errors,
)
from motionexp.methods.lora import LoRA, start_of_down
from motionexp.methods.step import Step


class LoRAStack(TuningMethod):
    """N LoRAs side by side; of a step's rows the n-th, the (N + n)-th and so on pass through the n-th LoRA.

    Each learns what it would learn alone, up to rounding: its rows have a loss of their own, and Adam updates
    number by number. A batch costs less than its rows one by one, most of all where the network is small.

    Args:
        backbone: the model to tune. Its network keeps a batch's rows in the outermost place.
        window: timesteps at which the LoRAs are trained.
        starts: the seed of each LoRA's initial state.
        rank, alpha, projections, attention: as of `LoRA`.

    Raises:
        InputError: the projections are not such a subset.
    """

    is_single = False
    takes_sharded = True
    layers: dict[str, "StackedLinear"]

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        starts: Sequence[int],
        *,
        rank: int = 4,
        alpha: float = 4.0,
        projections: Sequence[str] = ("v", "o"),
        attention: TunedAttention = "motion",
    ) -> None:
        self.starts = list(starts)
        layers = {
            name: StackedLinear(layer, len(starts), rank, alpha / rank, backbone.device)
            for name, layer in projection_layers(backbone, projections, window, attention).items()
        }
        settings = {"rank": rank, "alpha": alpha, "projections": list(projections), "attention": attention}
        super().__init__(backbone, window, layers, settings | {"starts": self.starts})
        self.reset(0)

    @classmethod
    def layer_parameters(cls, layer: nn.Linear, *, rank: int = 4, **settings: object) -> int:
        return rank * (layer.in_features + layer.out_features)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """(N, rank, in) and (N, out, rank) by the names that `LoRA` gives to one of them."""
        return {
            f"{name}.{part}.weight": parameter
            for name, layer in self.layers.items()
            for part, parameter in (("lora_A", layer.down), ("lora_B", layer.up))
        }

    def state_of(self, number: int) -> dict[str, Tensor]:
        """A copy of the tensors of one LoRA, as `LoRA.load` takes them."""
        return {name: tensor[number].clone() for name, tensor in self.state().items()}

    def reset(self, seed: int) -> None:
        """Return to the untrained state: of each LoRA from its seed in `starts`, whatever `seed` is."""
        for name, layer in self.layers.items():
            starts = [start_of_down(layer.down.shape[1:], start, name) for start in self.starts]
            with torch.no_grad():
                layer.down.copy_(torch.stack(starts))
                layer.up.zero_()

    def loss(self, step: Step) -> Tensor:
        """Return the loss of each LoRA, (N,): the mean squared error of its rows."""
        count = len(self.starts)
        # The layers take the rows of one LoRA next to each other.
        order = torch.arange(len(step.t)).view(-1, count).t().flatten().tolist()
        errors = squared_errors(self.backbone, step.rows(order))  # (B,)
        return errors.view(count, -1).mean(dim=1)

    def _set_scale(self, value: float) -> None:
        for layer in self.layers.values():
            layer.scale = value

    def switch(self, on: bool) -> None:
        for layer in self.layers.values():
            layer.is_on = on


class StackedLinear(nn.Module):
    """A linear layer, and N low-rank updates of it, each for the N-th part of the rows."""

    def __init__(
        self, base_layer: nn.Linear, count: int, rank: int, strength: float, device: torch.device
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down = nn.Parameter(torch.empty(count, rank, base_layer.in_features, device=device))
        self.up = nn.Parameter(torch.zeros(count, base_layer.out_features, rank, device=device))
        self.strength, self.scale, self.is_on = strength, 1.0, False
        self.train(base_layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return (R, ..., out) of x (R, ..., in), whose R rows are N parts of equal size."""
        output: Tensor = self.base_layer(x)
        if not self.is_on:
            return output
        parts = x.to(self.down.dtype).reshape(len(self.down), -1, x.shape[-1])  # (N, rows, in)
        change = parts @ self.down.transpose(1, 2) @ self.up.transpose(1, 2)
        return output + (change * (self.strength * self.scale)).view(output.shape).to(output.dtype)


class StackMember(LoRA):
    """One LoRA of a stack as it is now, for an adapter file: it is not attached to the network.

    Args:
        stack: attached, or not any more.
        number: of the LoRA, from 0.
    """

    is_single = False
    name = "lora"

    def __init__(self, stack: LoRAStack, number: int) -> None:
        self.backbone, self.window, self.key_prefix = stack.backbone, stack.window, stack.backbone.key_prefix
        self.layers = dict.fromkeys(stack.layers)  # names alone
        self.settings = {name: value for name, value in stack.settings.items() if name != "starts"}
        self._tensors = stack.state_of(number)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return {name: nn.Parameter(tensor) for name, tensor in self._tensors.items()}
