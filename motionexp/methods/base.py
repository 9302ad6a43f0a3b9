"""What a tuning method is: tensors beside a frozen backbone, trained and applied within one window."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motionexp.config.schema import PROJECTIONS
from motionexp.diffusion.backbone import Backbone, Conditioning, ProjectionKind
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError

OPTIMIZERS: Mapping[str, type[torch.optim.AdamW | torch.optim.Adam]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
}

EVERYWHERE = Window(0)
TunedAttention = ProjectionKind | Literal["all"]

_tuned: WeakSet[nn.Module] = WeakSet()  # networks with a method attached


@dataclass(frozen=True)
class OptimizerSettings:
    """How parameters are updated; the defaults are those of "Motion in Early Timesteps", appendix.

    The paper says "Adam" with a weight decay: `adamw` keeps the decay out of the gradient, `adam` adds it to
    the gradient.
    """

    name: str = "adamw"
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise InputError(f"optimizer={self.name}: one of {', '.join(OPTIMIZERS)}")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return a new optimizer of `parameters`."""
        return OPTIMIZERS[self.name](
            parameters,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class Step:
    """The tensors of one training step, on the backbone's device, in fp32.

    Attributes:
        latents: clean, (B, C, F, h, w).
        noise: standard normal, as `latents`.
        t: timesteps (B,), all inside the stage's window; whole ones unless it is flow matching.
        noisy: the latents at t, as `latents`.
        target: what the backbone's output should be, in its own parameterisation, as `latents`.
        conditioning: the training captions, B of them.
    """

    latents: Tensor
    noise: Tensor
    t: Tensor
    noisy: Tensor
    target: Tensor
    conditioning: Conditioning

    @classmethod
    def noised(
        cls, schedule: Schedule, latents: Tensor, noise: Tensor, t: Tensor, conditioning: Conditioning
    ) -> Self:
        """The step that learns from clean `latents` with `noise` at `t`, under the backbone's schedule."""
        noisy, target = schedule.add_noise(latents, noise, t), schedule.target(latents, noise, t)
        return cls(latents, noise, t, noisy, target, conditioning)


@dataclass(frozen=True)
class Stage:
    """One part of a method's training.

    Attributes:
        parameters: what is trained.
        loss: a scalar from one step's tensors; whatever else it needs it brings along.
        window: the timesteps that are drawn from.
        optimizer: made anew for the stage.
        steps: of the optimizer.
    """

    parameters: Sequence[nn.Parameter]
    loss: Callable[[Step], Tensor]
    window: Window
    optimizer: OptimizerSettings
    steps: int


class TuningMethod(ABC):
    """Trainable tensors beside a frozen network, on exactly for the timesteps of `window`.

    An instance is attached to its backbone's network from its making, switched off, until `remove`. While it
    is off, the network's outputs are bit for bit those of the base model. The network is shared and never
    copied; one method at a time can be attached to it. `window` may be replaced at any time; where networks
    share the timesteps, those that the first one reached stay the ones that are tuned.
    """

    key_prefix: str
    """What precedes the names of `parameters` in an adapter file."""

    def __init__(self, backbone: Backbone, window: Window) -> None:
        _refuse_second(backbone)
        _tuned.add(backbone.network)
        self.backbone = backbone
        self.window = window

    @property
    def name(self) -> str:
        """The method's name in rows, ids and adapter files: that of its module."""
        return type(self).__module__.rpartition(".")[-1]

    @classmethod
    @abstractmethod
    def trainable_parameters(
        cls, backbone: Backbone, window: Window = EVERYWHERE, *args: Any, **settings: Any
    ) -> int:
        """Return how many numbers it would train; `settings` are the constructor's keywords.

        It attaches nothing and reads only shapes, so that a network on the meta device will do.
        """

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments beside backbone and window, as plain values."""

    @property
    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable tensors, in fp32 whatever the network's precision."""

    @abstractmethod
    def stages(self, optimizer: OptimizerSettings, steps: int) -> list[Stage]:
        """Return how it is trained, in order, `steps` in all."""

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Go back to the untrained state: switched on, it gives the base model's outputs."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """Strength of the changes to the weights: 1 as trained, 0 none."""

    @scale.setter
    @abstractmethod
    def scale(self, value: float) -> None: ...

    @abstractmethod
    def switch(self, on: bool) -> None:
        """Turn it on or off, whatever the window."""

    def set_active(self, t: float | None) -> bool:
        """Turn it on if the window holds the timestep t (0..1000); else, or if t is None, off. Return it."""
        on = t is not None and self.window.contains(t)
        self.switch(on)
        return on

    def state(self) -> dict[str, Tensor]:
        """Return the tuned tensors, which share memory with `parameters`."""
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over the values of tuned tensors.

        Raises:
            InputError: a tensor is missing, unknown or of another shape. Nothing is changed then.
        """
        own = self.state()
        _check_shapes(own, state)
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def remove(self) -> None:
        """Leave the network as it was found, with its own modules and tensors."""
        self._detach()
        _tuned.remove(self.backbone.network)

    @abstractmethod
    def _detach(self) -> None:
        """Put the network's own modules back in place."""


def prediction_loss(backbone: Backbone, step: Step) -> Tensor:
    """Mean squared error of the backbone's output against its target, in fp32: the vanilla diffusion loss."""
    output = backbone.predict(step.noisy, step.t, step.conditioning)
    return F.mse_loss(output.float(), step.target)


def projection_layers(
    backbone: Backbone,
    projections: Sequence[str],
    window: Window = EVERYWHERE,
    attention: TunedAttention = "motion",
) -> dict[str, nn.Linear]:
    """Return the chosen projections of the attention that acts in a window, by module name.

    Args:
        backbone: its network may be on the meta device.
        projections: a non-empty subset of q, k, v, o.
        window: chooses among networks that share the timesteps.
        attention: which one, as in `Backbone.projections`, or all that the network has.

    Raises:
        InputError: the projections are not such a subset, or the network has no such attention.
        RuntimeError: a method is attached to the backbone, and its layers stand in their place.
    """
    _refuse_second(backbone)
    chosen = set(projections)
    if not chosen or len(chosen) < len(projections) or not chosen <= set(PROJECTIONS):
        raise InputError(f"projections=[{','.join(projections)}]: one or more of q, k, v, o, each once")
    kinds = backbone.attentions if attention == "all" else (attention,)
    named = [
        backbone.motion_projections(window) if kind == "motion" else backbone.projections(kind)
        for kind in kinds
    ]
    layers = {}
    for projection in (each for each in PROJECTIONS if each in chosen):
        for name in (name for names in named for name in names[projection]):
            layer = backbone.network.get_submodule(name)
            if not isinstance(layer, nn.Linear):
                raise TypeError(f"{name} is a {type(layer).__name__}: only linear layers can be tuned")
            layers[name] = layer
    return layers


def _refuse_second(backbone: Backbone) -> None:
    if backbone.network in _tuned:
        raise RuntimeError("another method is attached to this backbone: remove() it first")


def _check_shapes(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        parts = [f"{len(missing)} of {len(own)} tensors are missing ({missing[0]})"] if missing else []
        parts += [f"{len(unknown)} are unknown to this network ({unknown[0]})"] if unknown else []
        raise InputError(" and ".join(parts))
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise InputError(
                f"{name} has shape {tuple(state[name].shape)} where this network has {tuple(tensor.shape)}"
            )
