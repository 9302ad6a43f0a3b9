"""Attention of each token to itself alone, by the code of diffusers' perturbed attention guidance."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.hooks.layer_skip import AttentionScoreSkipFunctionMode
from torch import nn
from torch.nn import functional as F


@contextmanager
def perturbed_by_diffusers(network: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Perturb the attentions of these names in a network."""
    modules = [network.get_submodule(name) for name in names]
    forwards = [module.forward for module in modules]
    for module, forward in zip(modules, forwards, strict=True):
        module.forward = partial(_skipping, forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _skipping(forward: Any, *args: Any, **settings: Any) -> Any:
    with SkippingScores():
        return forward(*args, **settings)


class SkippingScores(AttentionScoreSkipFunctionMode):
    """diffusers' own, which leaves attention as it is where the caption's keys precede the video's (Show-1).

    There each query is masked to its own key.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention and args and args[0].shape[2] != args[1].shape[2]:
            query, key, value = args[:3]
            caption = key.shape[2] - query.shape[2]
            mask = F.pad(torch.eye(query.shape[2], dtype=torch.bool), (caption, 0))
            return func(query, key, value, attn_mask=mask)
        return super().__torch_function__(func, types, args, kwargs)
