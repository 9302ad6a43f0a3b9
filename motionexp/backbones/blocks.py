"""Names in diffusers' networks: of projections, of blocks, and of the attentions in blocks."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import nn

from motionexp.diffusion.backbone import Backbone, Block, Originals, ProjectionKind
from motionexp.errors import InputError


class NamedLayers(Backbone):
    """Finds projections and blocks by their names, in a network that may be on `meta`."""

    @staticmethod
    @abstractmethod
    def find_projections(network: Any, kind: ProjectionKind, /) -> dict[str, list[str]]:
        """`projections` of a network."""

    @staticmethod
    def find_blocks(network: Any, /) -> list[tuple[str, ...]]:
        """Of each block the modules that make it up, the one that runs last at the end; see `blocks`."""
        return numbered(network, "transformer_blocks")

    @staticmethod
    def find_originals(network: Any, /) -> Originals:
        """`original_layers` of a network."""
        return {}

    @classmethod
    def find_runs(cls, network: Any, /) -> list[list[str]]:
        """Names of the modules of all blocks, in the order in which they run; a list for each network."""
        return [[name for modules in cls.find_blocks(network) for name in modules]]

    @property
    def original_layers(self) -> Originals:
        """See `Backbone.original_layers`."""
        return self.find_originals(self.without_weights())

    @abstractmethod
    def without_weights(self) -> nn.Module:
        """The network on `meta`."""

    def projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """See `Backbone.projections`. Raises InputError for a kind that the motion attention covers."""
        if kind not in self.attentions:
            raise InputError(f"{self.name} has no {kind} attention apart from its motion attention")
        return self.find_projections(self.network, kind)

    @cached_property
    def blocks(self) -> list[Block]:
        """See `Backbone.blocks`."""
        network = self.without_weights()
        kinds: list[ProjectionKind] = [kind for kind in self.attentions if kind != "cross"]
        queries = {kind: self.find_projections(network, kind)["q"] for kind in kinds}
        return [
            Block(self.outputs_of(modules), attentions_in(modules, queries), self.motion_layout)
            for modules in self.find_blocks(network)
        ]

    @staticmethod
    def outputs_of(modules: tuple[str, ...]) -> tuple[str, ...]:
        """Those modules of a block whose output is the block's, of which one runs: here the last."""
        return modules[-1:]


def numbered(network: Any, *lists: str) -> list[tuple[str, ...]]:
    """The blocks in a list of modules of a network, or in several lists, one after the other."""
    return [(f"{name}.{index}",) for name in lists for index in range(len(network.get_submodule(name)))]


def levels(network: Any) -> list[tuple[str, ...]]:
    """The blocks of a U-Net: its levels on the way down, the middle, and those on the way up."""
    middle = [("mid_block",)] if getattr(network, "mid_block", None) is not None else []
    return [*numbered(network, "down_blocks"), *middle, *numbered(network, "up_blocks")]


def attentions_in(
    modules: Sequence[str], queries: Mapping[ProjectionKind, Sequence[str]]
) -> dict[ProjectionKind, tuple[str, ...]]:
    """Names of the attentions within modules, by kind.

    Args:
        modules: make up a block.
        queries: names of the query layers of all attentions of a kind.
    """
    beginnings = tuple(f"{module}." for module in modules)
    return {
        kind: tuple(name.rpartition(".")[0] for name in names if name.startswith(beginnings))
        for kind, names in queries.items()
    }
