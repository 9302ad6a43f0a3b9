"""The parts of a diffusers pipeline with weights: loaded when they are first used, and given back."""

from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import cpu_offload_with_hook
from accelerate.hooks import UserCpuOffloadHook
from diffusers import ModelMixin
from torch import Tensor, nn
from transformers import PreTrainedModel

from motionexp.backbones.block_weights import lower_precision, offload_blocks
from motionexp.backbones.blocks import NamedLayers
from motionexp.backbones.checkpoint import (
    NetworkPrecision,
    Offload,
    TextPrecision,
    load_decoder,
    load_part,
    shape_of,
)
from motionexp.backbones.cpu_kernels import with_fast_kernels
from motionexp.backbones.memory import (
    drop_encoder,
    frozen,
    give_memory_back,
    outermost,
    recompute,
)
from motionexp.backbones.sharding import shard
from motionexp.config.memory import GROUPED
from motionexp.hub import naming_the_model


class PipelineParts(NamedLayers):
    """A network, a text encoder, and all but once a VAE; some have an image encoder.

    Each part's weights are loaded when it is first used, so that a text encoder can be gone before the
    network needs the room, and is never read where captions were embedded before. The VAE and an image
    encoder stay in fp32: they run once a video, and rounding shows. On the device `meta` all works as far as
    shapes go, without weights.

    Attributes:
        classes: the class of each part with weights, the network's first.
        recomputed: modules that `checkpointing` computes again, where diffusers' class does not do so itself.
        checkpointing, offload, tiling, text_precision, network_precision: see
            `PipelineBackbone.from_pretrained`.
    """

    classes: ClassVar[dict[str, type[ModelMixin] | type[PreTrainedModel]]]
    recomputed: ClassVar[tuple[type[nn.Module], ...]] = ()
    moves_blocks = True
    checkpointing: bool
    offload: Offload
    tiling: bool
    text_precision: TextPrecision
    network_precision: NetworkPrecision
    _folder: Path
    _encodes: bool
    _embeds: bool
    _offloaded: list[UserCpuOffloadHook]
    _shapes: dict[str, Any]

    @classmethod
    def _parts_of_network(cls) -> list[str]:
        return [part for part in cls.classes if part != "vae" and "_encoder" not in part]

    @cached_property
    def network(self) -> Any:  # type: ignore[override]  # mypy takes it for read-only
        """See `Backbone`."""
        parts = {part: self._load(part) for part in self._parts_of_network()}
        with torch.device("meta") if self.device.type == "meta" else nullcontext():
            network = self._assemble(self._folder, parts)
        network = frozen(with_fast_kernels(network, self.device, self.dtype))
        if self.network_precision != "auto":
            runs = self.block_runs(network)
            lower_precision(network, runs, self.network_precision, self.dtype, self.device)
        by_block = self.offload in GROUPED and self.device.type != "meta"
        if by_block:
            runs, stream = self.block_runs(network), self.offload == "group_stream"
            offload_blocks(network, runs, self.device, stream=stream)
        # After the blocks: their backward pass then fetches their weights again.
        if self.checkpointing:
            recompute(network, self.recomputed)
        if self.sharded:
            return shard(network, self.device)
        return network if by_block else self._placed(network)

    @classmethod
    def block_runs(cls, network: Any) -> list[list[nn.Module]]:
        """The modules of a network whose weights are moved and cast together, in the order in which they run.

        They are those that `checkpointing` computes again, so that the backward pass fetches them anew.
        """
        if cls.recomputed:
            return [[module] for module in outermost(network, cls.recomputed)]  # in no fixed order
        return [[network.get_submodule(name) for name in names] for names in cls.find_runs(network)]

    def without_weights(self) -> Any:
        """See `NamedLayers`."""
        with torch.device("meta"):
            return self._assemble(self._folder, self._shapes)

    @cached_property
    def vae(self) -> Any:
        """What makes latents of frames, and frames of latents; None where there is none."""
        if "vae" not in self.classes:
            return None
        vae = self._load("vae")
        if self.tiling:
            vae.enable_tiling()
        return self._placed(vae)

    @cached_property
    def text_encoder(self) -> Any:
        """What embeds captions; None once it is released."""
        if not self._embeds:
            return None
        text = [part for part in self.classes if part.startswith("text_encoder")]
        assembled = self._assemble_text(self._folder, {part: self._load(part) for part in text})
        quantized = self.text_precision != "auto"  # such a model is where it has to be already
        return frozen(assembled if quantized else assembled.to(self.device))

    def _load(self, part: str) -> Any:
        kind, folder = self.classes[part], self._folder / part
        dtype = torch.float32 if part in ("vae", "image_encoder") else self.dtype
        if self.device.type == "meta":
            shape = nn.Module.to(shape_of(kind, folder), dtype)  # diffusers' own warns of nothing
            if part == "vae" and not self._encodes:
                drop_encoder(shape)
            return shape
        with naming_the_model(self.source, self.revision, self.parts):
            if part == "vae" and not self._encodes:
                return load_decoder(kind, folder, dtype)
            if not part.startswith("text_encoder"):
                return load_part(kind, folder, dtype)
            return load_part(kind, folder, dtype, self.text_precision, self.device)

    def _placed(self, module: nn.Module) -> nn.Module:
        """On the device; with `offload` in main memory as long as another part computes."""
        if self.offload == "none" or self.device.type == "meta":
            return frozen(module.to(self.device))
        module, hook = cpu_offload_with_hook(frozen(module), self.device)
        # Each part sends the one that computed before it to main memory.
        for partner in self._offloaded:
            hook.hook.prev_module_hook, partner.hook.prev_module_hook = partner, hook
        self._offloaded.append(hook)
        return module

    @classmethod
    def _assemble(cls, folder: Path, parts: Mapping[str, Any]) -> Any:
        """The network, of those of the loaded `classes` that make it up."""
        return parts[cls.component]

    @classmethod
    def _assemble_text(cls, folder: Path, parts: Mapping[str, Any]) -> nn.Module:
        """The text encoder, of those of the loaded `classes` that make it up."""
        encoder: nn.Module = parts["text_encoder"]
        return encoder

    def _vae_back(self, result: Tensor) -> Tensor:
        """The VAE's result, with the VAE in main memory again, where no network's hook sends it there."""
        for hook in self._offloaded if self.offload in GROUPED else ():
            hook.offload()
        return result

    def unload(self) -> None:
        """See `Backbone.unload`."""
        self._embeds, self._encodes, self._offloaded = True, True, []
        loaded = vars(self).keys() & {"network", "vae", "text_encoder"}  # cached properties
        for part in loaded:
            del vars(self)[part]
        if loaded:
            give_memory_back()

    def release_text_encoder(self) -> None:
        """See `Backbone.release_text_encoder`."""
        self._embeds = False
        self.text_encoder = None
        give_memory_back()

    def release_vae_encoder(self) -> None:
        """See `Backbone.release_vae_encoder`."""
        self._encodes = False
        if vars(self).get("vae") is not None:
            drop_encoder(self.vae)
            give_memory_back()
