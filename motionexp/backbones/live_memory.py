"""How much memory a computation takes, from a rehearsal on the meta device: shapes without numbers."""

import weakref
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, UntypedStorage, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from motionexp.backbones.precision import plain_attention

COPY = torch.ops.aten._to_copy.default
VALUE = torch.ops.aten._local_scalar_dense.default
WHERE = torch.ops.aten.nonzero.default


def weight_bytes(module: nn.Module | None) -> int:
    """Memory of a module's parameters and buffers; they may be on the meta device."""
    if module is None:
        return 0
    tensors = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return sum(each.nbytes for each in tensors.values())


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


class LiveMemory(TorchDispatchMode):
    """Counts what lives at the same time of the tensors that are made on the meta device within it.

    What operations use inside themselves is not seen: workspaces of convolutions and of matrix products.
    Attention is counted as the fused kernels do it, unless the device at hand would take the plain one; what
    goes to main memory stays, and is counted, where the rehearsal is.

    Args:
        device: that the rehearsal stands for.

    Attributes:
        now: bytes alive.
        peak: the most that there were.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._device, self._plain, self._autocast = device, F.scaled_dot_product_attention, torch.autocast

    def __enter__(self) -> "LiveMemory":
        self._replaced = ExitStack()
        # On the meta device attention is computed in the plain way, with the whole matrix of scores.
        self._replaced.enter_context(patch.object(F, "scaled_dot_product_attention", self._attention))
        self._replaced.enter_context(patch.object(torch, "autocast", self._no_autocast))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._replaced.close()

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **settings: Any
    ) -> Tensor:
        if plain_attention(self._device, query.dtype, max(query.shape[-2], key.shape[-2])):
            return self._plain(query, key, value, attn_mask, **settings)
        if attn_mask is not None:
            attn_mask = attn_mask.to(query.dtype)  # what is added to the scores
        fused: Tensor = _Fused.apply(query, key, value, attn_mask)
        return fused

    def _no_autocast(self, device_type: str, *args: Any, **settings: Any) -> AbstractContextManager[Any]:
        """Which torch does not have for the meta device."""
        return nullcontext() if device_type == "meta" else self._autocast(device_type, *args, **settings)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is COPY and args[0].is_meta and kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        if func is VALUE and args[0].is_meta:
            return False  # a number is asked for where there is none: whether a mask masks nothing
        # What goes in was there before, and what comes out may be a view of it.
        before = {id(each.untyped_storage()) for each in tree_leaves((args, kwargs)) if _is_meta(each)}
        if func is WHERE and args[0].is_meta:  # the most that it can be: captions that fill their length
            output = torch.empty(args[0].numel(), args[0].dim(), dtype=torch.long, device="meta")
        else:
            output = func(*args, **kwargs)
        for each in tree_leaves(output):
            if _is_meta(each) and id(each.untyped_storage()) not in before:
                self._count(each.untyped_storage())
        return output

    def _count(self, storage: UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


class _Fused(torch.autograd.Function):
    """What a fused attention kernel makes and keeps: the output and a number for each query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float)
        ctx.save_for_backward(query, key, value, output, sums, mask)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*(torch.empty_like(each) for each in ctx.saved_tensors[:3]), None)
