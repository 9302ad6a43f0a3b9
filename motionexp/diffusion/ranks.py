"""What the ranks of a job tell each other; see `config.ranks`. In a process without others all is local."""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")


def size() -> int:
    """How many ranks there are; 1 outside of `jobs.ranks.joined`."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def number() -> int:
    """This process's rank, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Whether this rank reads and writes files, and prints."""
    return number() == 0


def on_node() -> tuple[int, int]:
    """This rank's number on its node, and how many ranks the node has."""
    return (int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])) if size() > 1 else (0, 1)


def of_first(value: Value) -> Value:
    """The value that rank 0 has, on every rank; all ranks call it. Tensors are on the CPU."""
    if size() == 1:
        return value
    values = [value if is_first() else None]
    distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]  # type: ignore[return-value]


def gathered(value: Value) -> list[Value]:
    """The values of all ranks in their order, on rank 0; nothing on the others. All ranks call it."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    distributed.gather_object(value, values if is_first() else None, dst=0)
    return values if is_first() else []


def largest(value: int) -> int:
    """The largest of a whole number that each rank has; all ranks call it."""
    if size() == 1:
        return value
    tensor = torch.tensor(value)
    distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    return int(tensor)


@torch.no_grad()
def averaged(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean over all ranks of each tensor, in one exchange; all ranks call it with equal shapes.

    All tensors are on one device, and computed in the largest of their precisions.
    """
    if size() == 1:
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])  # of the largest precision
    distributed.all_reduce(flat)
    parts = (flat / size()).split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]
