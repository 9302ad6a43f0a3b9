"""A frozen network of which each rank holds a part, and gathers a block's weights when it computes."""

import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard


def shard(network: nn.Module, device: torch.device) -> nn.Module:
    """Spread a frozen network's weights over all ranks, by PyTorch's `fully_shard`; changed in place.

    What trains is attached afterwards, and stays whole on each rank. The network is sharded when it is loaded
    and stays so, for inversion and sampling need it before and after the training. The training's strategy,
    `methods.trainer.ShardedNetwork`, takes the mesh from the network.

    Args:
        network: frozen, in main memory: one block at a time goes to the device whole.
        device: of this rank.
    """
    # It warns of what a caller might do with the output in place, which no backbone does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    # Without names of its dimensions: peft takes a named mesh for tensor parallelism, and makes the LoRA of a
    # layer as small as the part of the layer that this rank holds.
    mesh = torch.distributed.init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in blocks_of(network):
        fully_shard(block, mesh=mesh)
    # What lies outside of the blocks is gathered once a pass.
    fully_shard(network, mesh=mesh)
    return network


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of a network's outermost lists, such as a transformer's blocks."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from blocks_of(child)
