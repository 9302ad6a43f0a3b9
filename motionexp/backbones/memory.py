"""What a backbone's parts do to need less memory."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint


def frozen(module: nn.Module) -> nn.Module:
    """The module in eval mode, without gradients of its own."""
    return module.requires_grad_(False).eval()


def drop_encoder(vae: Any) -> None:
    """Take from a VAE what only encoding needs."""
    vae.encoder = None
    vae.quant_conv = None


def give_memory_back() -> None:
    """Free what nobody refers to any more: modules refer to each other in circles, which wait for a sweep."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def recompute(network: nn.Module, modules: tuple[type[nn.Module], ...]) -> None:
    """Make a network keep less of a forward pass, and compute it again in the backward pass.

    Args:
        network: changed in place; its outputs and gradients stay the same.
        modules: the classes whose calls are computed again; none: as diffusers does it for the network.
    """
    if not modules:
        for module in network.modules():
            if isinstance(module, ModelMixin):
                module.enable_gradient_checkpointing(_recomputed)
        return
    for module in outermost(network, modules):
        module.forward = partial(_recomputed, module.forward)


def outermost(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[nn.Module]:
    """The modules of some classes that lie in no other of them: what is in one is computed with it."""
    for child in network.children():
        if isinstance(child, kinds):
            yield child
        else:
            yield from outermost(child, kinds)


def _recomputed(forward: Any, *args: Any, **settings: Any) -> Any:
    # Sampling keeps no activations anyway.
    if not torch.is_grad_enabled():
        return forward(*args, **settings)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=_same_kernels, **settings)


def _same_kernels() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What is computed again takes the attention kernels that the forward pass may take now."""
    may = {
        SDPBackend.MATH: cuda.math_sdp_enabled(),
        SDPBackend.FLASH_ATTENTION: cuda.flash_sdp_enabled(),
        SDPBackend.EFFICIENT_ATTENTION: cuda.mem_efficient_sdp_enabled(),
        SDPBackend.CUDNN_ATTENTION: cuda.cudnn_sdp_enabled(),
    }
    # Another kernel would round differently, and the gradients would belong to another forward pass.
    return nullcontext(), sdpa_kernel([kernel for kernel, is_on in may.items() if is_on])
