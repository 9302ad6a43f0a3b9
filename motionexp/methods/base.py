"""The interface of a tuning method: tensors beside a frozen network, trained and applied in one window."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motionexp.config.checks import missing_attention
from motionexp.config.schema import PROJECTIONS
from motionexp.diffusion.backbone import Backbone, ProjectionKind
from motionexp.diffusion.schedule import EVERYWHERE, Window
from motionexp.diffusion.window_in_steps import reached, span_of
from motionexp.errors import InputError
from motionexp.methods.step import Step

OPTIMIZERS: Mapping[str, type[torch.optim.AdamW | torch.optim.Adam]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
}

TunedAttention = ProjectionKind | Literal["all"]

_tuned_networks: WeakSet[nn.Module] = WeakSet()  # networks with a method attached


@dataclass(frozen=True)
class OptimizerSettings:
    """How parameters are updated; the defaults are those of "Motion in Early Timesteps", appendix.

    The paper says "Adam" with a weight decay: `adamw` applies the decay to the weights directly, `adam` adds
    it to the gradient. Raises InputError for another name.
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
class TrainingSettings:
    """Settings of a training. Raises InputError for a number of steps or a batch size below 1.

    Attributes:
        steps: optimizer steps, from 1.
        batch_size: noise draws in a batch, from 1; the examples follow each other in turn.
        accumulate: batches of a step, from 1, whose gradients are averaged. Each rank takes so many.
        seed: of the initial state, the noise and the timesteps, together with the reference.
        optimizer: with its learning rate.
        keep_steps: step counts at which `on_keep` is called.
        checkpoint_every: steps between checkpoints; 0: only at the end, or when interrupted.
        preview_every: steps between calls of `on_preview`; 0: none.
    """

    steps: int = 200
    batch_size: int = 1
    accumulate: int = 1
    seed: int = 0
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    keep_steps: tuple[int, ...] = ()
    checkpoint_every: int = 50
    preview_every: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: a whole number from 1")

    @property
    def draws(self) -> int:
        """Noise draws of one rank in a step."""
        return self.batch_size * self.accumulate


class TuningMethod(ABC):
    """Trainable tensors beside a frozen network, active exactly at the timesteps of `window`.

    A method is a module of this folder with one subclass, and a file of the same name in `conf/method/`. The
    module's name is the method's name. `tests/methods/test_contract.py` tests every method of the folder.

    An instance is attached to its backbone's network from its construction until `remove`, and is switched
    off at first. While it is off, the network's outputs are bit for bit those of the base model. The network
    is shared and never copied; only one method at a time can be attached to it. `window` may be replaced at
    any time. Where several networks share the timesteps, the networks that the first window reached stay the
    tuned ones.

    Attributes:
        is_single: whether it is one adapter, which a file can hold.
        takes_sharded: whether it only reads shapes of the network's weights, of which a rank may hold a part.
        needs: the kinds of attention that the network must have apart from each other.
        starts_as_base: whether the untrained method, switched on, gives the base model's outputs.
        inverts_tuned: whether the tuned network inverts the reference for `inverted_noise`, in place of the
            base model.
        key_prefix: precedes the names of `parameters` in an adapter file.
        span: the timesteps of the networks that the first window reached, outside which the method changes
            nothing.
        layers: the attached layers by the name of the linear layer that each replaces, its `base_layer`.
        settings: the constructor's arguments besides backbone and window, as plain values.
    """

    key_prefix = ""
    is_single: ClassVar[bool] = True
    takes_sharded: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    starts_as_base: ClassVar[bool] = True
    inverts_tuned: ClassVar[bool] = False

    def __init__(
        self, backbone: Backbone, window: Window, layers: Mapping[str, nn.Module], settings: dict[str, Any]
    ) -> None:
        """Put `layers` in the place of the network's own layers of these names."""
        # Before anything is changed: two methods would hold each other's layers as base layers.
        refuse_second_method(backbone)
        _tuned_networks.add(backbone.network)
        self.backbone = backbone
        self.window = window
        self.span = span_of(backbone.spans, reached(backbone.spans, window))
        self.layers = layers
        self.settings = settings
        self._scale = 1.0
        for name, layer in layers.items():
            backbone.network.set_submodule(name, layer)

    @classmethod
    def refuse_missing_attention(cls, backbone: Backbone) -> None:
        """Raise InputError if the backbone lacks a kind of attention that the method needs."""
        for problem in missing_attention(cls.module_name(), cls.needs, backbone.name, backbone.attentions):
            raise InputError(problem)

    @classmethod
    def module_name(cls) -> str:
        """The name of the method's module."""
        return cls.__module__.rpartition(".")[-1]

    @property
    def name(self) -> str:
        """The method's name in rows, ids and adapter files: the name of its module."""
        return self.module_name()

    @classmethod
    def trainable_parameters(
        cls,
        backbone: Backbone,
        window: Window = EVERYWHERE,
        *,
        projections: Sequence[str] = ("v", "o"),
        attention: TunedAttention = "motion",
        **settings: Any,
    ) -> int:
        """Return how many numbers the method would train with these arguments of its constructor.

        Attaches nothing and reads only shapes: the network may be on the meta device.
        """
        layers = projection_layers(backbone, projections, window, attention).values()
        return sum(cls.layer_parameters(layer, **settings) for layer in layers)

    @classmethod
    def layer_parameters(cls, layer: nn.Linear, **settings: Any) -> int:
        """Return how many numbers the method trains for one linear layer that it chooses by projection.

        A method that chooses otherwise implements `trainable_parameters`.
        """
        raise NotImplementedError

    @property
    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable tensors, in fp32 on the backbone's device, wherever the network's weights are."""

    @property
    def auxiliary(self) -> dict[str, nn.Parameter]:
        """Tensors that are trained beside `parameters` and act in training alone; no adapter file has them.

        In fp32; their names are not those of `parameters`. A training's checkpoint holds them.
        """
        return {}

    @property
    def trained(self) -> list[nn.Parameter]:
        """All tensors that a training updates."""
        return [*self.parameters.values(), *self.auxiliary.values()]

    def losses(self, step: Step) -> Iterator[Tensor]:
        """Yield the terms whose sum a training minimizes; see `loss`, by default the only one.

        The gradient of a term is computed before the next one is asked for. A method may then switch its
        layers between the terms, also where activations are computed again in the backward pass.
        """
        yield self.loss(step)

    def loss(self, step: Step) -> Tensor:
        """Return what training minimizes: by default the diffusion loss, `prediction_loss`.

        A scalar, or the losses (N,) of N adapters that are trained together, whose sum is minimized.
        """
        return prediction_loss(self.backbone, step)

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Return to the untrained state; see `starts_as_base`."""

    @abstractmethod
    def switch(self, on: bool) -> None:
        """Turn the method on or off, whatever the window."""

    @property
    def scale(self) -> float:
        """Strength s of the changes to the weights: W + s (W_tuned - W), 1 as trained, 0 none."""
        return self._scale

    @scale.setter
    def scale(self, value: float) -> None:
        self._scale = value
        self._set_scale(value)

    @abstractmethod
    def _set_scale(self, value: float) -> None:
        """Give the strength to every layer."""

    def set_active(self, t: float | None) -> bool:
        """Turn the method on if the window holds timestep t (0..1000), else off; t=None turns it off.

        Returns:
            Whether the method is on.
        """
        # None is the end of sampling, where no timestep is left.
        on = t is not None and self.window.contains(t)
        self.switch(on)
        return on

    def state(self) -> dict[str, Tensor]:
        """Return the tuned tensors, which share memory with `parameters`."""
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy the values of tuned tensors into `parameters`.

        Raises:
            InputError: a tensor is missing, unknown or of another shape. Nothing is changed then.
        """
        tensors = self.state()
        # All shapes before the first copy: a wrong file must not leave a half loaded method.
        _check_shapes(tensors, state)
        for name, tensor in tensors.items():
            tensor.copy_(state[name])

    def file_metadata(self) -> dict[str, str]:
        """Return metadata that other programs need to load the adapter file; by default none."""
        return {}

    def remove(self) -> None:
        """Put the network's own layers back in their places."""
        for name, layer in self.layers.items():
            self.backbone.network.set_submodule(name, layer.get_submodule("base_layer"))
        _tuned_networks.remove(self.backbone.network)


def prediction_loss(backbone: Backbone, step: Step) -> Tensor:
    """Mean squared error of the backbone's output against its target, in fp32: the plain diffusion loss."""
    output = backbone.predict(step.noisy, step.t, step.conditioning)  # (B, C, F, h, w)
    # DDPM eq. 14, as a mean over all elements of x_t and not as a sum.
    return F.mse_loss(output.float(), step.target)


def squared_errors(backbone: Backbone, step: Step) -> Tensor:
    """`prediction_loss` of each row, (B,)."""
    output = backbone.predict(step.noisy, step.t, step.conditioning)  # (B, C, F, h, w)
    return (output.float() - step.target).square().flatten(1).mean(dim=1)


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
        window: selects the networks that act in it, where several networks share the timesteps.
        attention: a kind of `Backbone.projections`, or all kinds that the network has.

    Raises:
        InputError: the projections are not such a subset, or the network has no such attention.
        RuntimeError: a method is attached to the backbone and has replaced layers.
    """
    refuse_second_method(backbone)
    chosen = set(projections)
    if not chosen or len(chosen) < len(projections) or not chosen <= set(PROJECTIONS):
        raise InputError(f"projections=[{','.join(projections)}]: one or more of q, k, v, o, each once")
    # 1. The names of the layers by kind of attention, and by projection within each kind.
    kinds = backbone.attentions if attention == "all" else (attention,)
    names_by_kind = [
        backbone.motion_projections(window) if kind == "motion" else backbone.projections(kind)
        for kind in kinds
    ]
    # 2. The layers, always in the order q, k, v, o: the optimizer's order must not follow the option's.
    ordered = [projection for projection in PROJECTIONS if projection in chosen]
    names = [name for projection in ordered for kind in names_by_kind for name in kind[projection]]
    layers = {}
    for name in names:
        layer = backbone.network.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"{name} is a {type(layer).__name__}: only linear layers can be tuned")
        layers[name] = layer
    return layers


def refuse_second_method(backbone: Backbone) -> None:
    """Raise RuntimeError if a method is attached to the backbone's network."""
    if backbone.network in _tuned_networks:
        raise RuntimeError("another method is attached to this backbone: remove() it first")


def _check_shapes(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(tensors.keys() - state.keys()), sorted(state.keys() - tensors.keys())
    if missing or unknown:
        parts = [f"{len(missing)} of {len(tensors)} tensors are missing ({missing[0]})"] if missing else []
        parts += [f"{len(unknown)} are unknown to this network ({unknown[0]})"] if unknown else []
        raise InputError(" and ".join(parts))
    # copy_ would broadcast a (1, n) tensor into (m, n) without an error.
    for name, tensor in tensors.items():
        if state[name].shape != tensor.shape:
            raise InputError(
                f"{name} has shape {tuple(state[name].shape)} where this network has {tuple(tensor.shape)}"
            )
