"""A LoRA along time that is saved, beside one within frames that acts in training alone."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import EVERYWHERE, Window
from motionexp.methods.base import prediction_loss, projection_layers
from motionexp.methods.lora import LoRA, tensors_of
from motionexp.methods.step import Step


class DualLoRA(LoRA):
    """Two LoRAs of equal rank: `parameters` are those of the layers along time, `auxiliary` the others.

    While sampling, the layers within frames are off. A subclass chooses the layers and the losses.

    Args:
        backbone, window: as of `LoRA`. The network has attention within frames apart from that along time.
        temporal, spatial: the linear layers by their names in the network.
        rank, alpha: of both LoRAs.
        settings: of the subclass's constructor.

    Raises:
        InputError: rank or alpha is out of range, or the backbone has no such attention.
    """

    is_single = False
    needs: ClassVar[tuple[str, ...]] = ("motion", "spatial")

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        temporal: Iterable[str],
        spatial: Iterable[str],
        *,
        rank: int,
        alpha: float,
        settings: Mapping[str, Any],
    ) -> None:
        self.check_size(rank, alpha)
        self._temporal_names, names = set(temporal), [*temporal, *spatial]
        self._attach(backbone, window, dict.fromkeys(names, (rank, alpha)), dict(settings))

    @classmethod
    @abstractmethod
    def chosen(
        cls, backbone: Backbone, window: Window, **settings: Any
    ) -> tuple[dict[str, nn.Linear], dict[str, nn.Linear]]:
        """The layers along time and those within frames, by name; of a network that may be on `meta`."""

    @classmethod
    def trainable_parameters(cls, backbone: Backbone, window: Window = EVERYWHERE, **settings: Any) -> int:
        """See `TuningMethod.trainable_parameters`: those of both LoRAs."""
        rank = settings.get("rank", 4)
        layers = [layer for part in cls.chosen(backbone, window, **settings) for layer in part.values()]
        return sum(cls.layer_parameters(layer, rank=rank) for layer in layers)

    @property
    def saved_layers(self) -> Mapping[str, LoraLayer]:
        """The layers along time."""
        return {name: layer for name, layer in self.layers.items() if name in self._temporal_names}

    @property
    def spatial_layers(self) -> Mapping[str, LoraLayer]:
        """The layers within frames."""
        return {name: layer for name, layer in self.layers.items() if name not in self._temporal_names}

    @property
    def auxiliary(self) -> dict[str, nn.Parameter]:
        return tensors_of(self.spatial_layers)

    def switch(self, on: bool) -> None:
        """See `TuningMethod.switch`; the layers within frames are off in any case."""
        self.turn(temporal=on, spatial=False)

    def turn(self, *, temporal: bool, spatial: bool, train_spatial: bool = False) -> None:
        """Turn each LoRA on or off. The temporal LoRA is trained wherever it is on.

        Args:
            temporal, spatial: whether it is on.
            train_spatial: whether the spatial LoRA is trained; else it acts with fixed tensors.
        """
        parts = ((self.saved_layers, temporal, temporal), (self.spatial_layers, spatial, train_spatial))
        for layers, on, trained in parts:
            for layer in layers.values():
                if layer.disable_adapters == on:
                    layer.enable_adapters(on)
            for tensor in tensors_of(layers).values():
                tensor.requires_grad_(on and trained)

    def appearance_loss(self, step: Step, purpose: str) -> Tensor:
        """The diffusion loss of one random frame of each row, with the spatial LoRA alone, a scalar."""
        self.turn(temporal=False, spatial=True, train_spatial=True)
        return prediction_loss(self.backbone, step.frames(step.random_frames(purpose)))


def layers_of_both(
    backbone: Backbone, window: Window, projections: Sequence[str], feed_forward: bool
) -> tuple[dict[str, nn.Linear], dict[str, nn.Linear]]:
    """The projections of the attention along time, and of that within frames, by name.

    With `feed_forward` also the feed-forward layers of their blocks.
    """
    temporal = projection_layers(backbone, projections, window, "motion")
    spatial = projection_layers(backbone, projections, window, "spatial")
    if feed_forward:
        temporal |= feed_forward_layers(backbone, temporal)
        spatial |= feed_forward_layers(backbone, spatial)
    return temporal, spatial


def feed_forward_layers(backbone: Backbone, attention_layers: Iterable[str]) -> dict[str, nn.Linear]:
    """The feed-forward layers of the blocks that hold these layers of attention, by name."""
    layers: dict[str, nn.Linear] = {}
    for name in attention_layers:
        block = name.split(".attn")[0]
        if ".attn" not in name or not hasattr(backbone.network.get_submodule(block), "ff"):
            continue
        for part, layer in backbone.network.get_submodule(f"{block}.ff").named_modules():
            if isinstance(layer, nn.Linear):
                layers[f"{block}.ff.{part}"] = layer
    return layers
