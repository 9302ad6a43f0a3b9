"""Faster kernels for the frozen layers of a network that computes in fp32 on a CPU.

PyTorch takes MKL for matrix products in fp32, which does not use the AVX-512 of AMD's processors; oneDNN
does. PyTorch has no fast kernel for convolutions of 3D kernels, and its fused attention is slow on short
sequences. Results differ from those of PyTorch's choice in the last bits. Names and parameters stay the same.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

from motionexp.backbones.precision import SHORT_SEQUENCE


def takes_fast_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there are faster kernels than PyTorch's choice."""
    return device.type == "cpu" and dtype == torch.float32 and bool(torch.backends.mkldnn.is_available())


def with_fast_kernels(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A frozen network, changed in place if it computes in fp32 on a CPU that oneDNN knows (not a Mac's)."""
    if not takes_fast_kernels(device, dtype):
        return network
    for module in network.modules():
        if isinstance(module, Attention):
            if type(module.processor) is AttnProcessor2_0 and _is_plain(module):
                module.processor = ShortAttention()
        elif type(module) is nn.Linear:
            module.__class__ = FrozenLinear
        elif type(module) is nn.Conv3d and _runs_along_frames(module):
            module.__class__ = FrameConvolution
    return network


class FrozenLinear(nn.Linear):
    """A linear layer that oneDNN computes, where its weight needs no gradient and is fp32 on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of x (..., in)."""
        weight = self.weight
        is_plain = x.dtype == weight.dtype == torch.float32 and weight.device.type == "cpu"
        if not is_plain or weight.requires_grad or x.numel() == 0:
            return F.linear(x, weight, self.bias)
        output: Tensor = _FrozenProduct.apply(x, weight, self.bias)
        return output


class _FrozenProduct(torch.autograd.Function):
    """x W^T + b with a gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        # oneDNN takes the transposed weight as it lies: copying it first is not faster.
        return _product(gradients[0].contiguous(), weight.t(), None), None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class FrameConvolution(nn.Conv3d):
    """A convolution along frames alone, as one of two dimensions: frames, and all positions of a frame."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, out, F, h, w) of (B, in, F, h, w)."""
        *_, height, width = input.shape
        padding = int(self.padding[0])
        output = F.conv2d(input.flatten(3), self.weight.flatten(3), self.bias, padding=(padding, 0))
        return output.unflatten(3, (height, width))


def _runs_along_frames(layer: nn.Conv3d) -> bool:
    ones = {*layer.kernel_size[1:], *layer.stride, *layer.dilation, layer.groups} == {1}
    return (
        ones
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and (tuple(layer.padding[1:]) == (0, 0))
    )


class ShortAttention(AttnProcessor2_0):
    """Attention by its formula where sequences are short, else diffusers'; see `_is_plain` for the layer."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        **settings: Any,
    ) -> Tensor:
        """Return (B, L, D) of hidden_states (B, L, D), which attend to themselves or to (B, S, E)."""
        attended = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        longest = max(hidden_states.shape[1], attended.shape[1])
        if hidden_states.ndim != 3 or hidden_states.dtype != torch.float32 or longest > SHORT_SEQUENCE:
            output: Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, *args, **settings
            )
            return output
        # 1. (B, heads, L or S, width) each.
        query, key, value = (
            layer(states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for layer, states in (
                (attn.to_q, hidden_states),
                (attn.to_k, attended),
                (attn.to_v, attended),
            )
        )
        # 2. Vaswani et al. 2017, equation 1; scaled before the product, where there are fewer numbers.
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)  # (B, heads, L, S)
        if attention_mask is not None:
            mask = attn.prepare_attention_mask(attention_mask, attended.shape[1], len(attended))
            scores = scores + mask.view(len(attended), attn.heads, -1, mask.shape[-1])
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        for layer in attn.to_out:
            mixed = layer(mixed)
        return mixed + hidden_states if attn.residual_connection else mixed


def _is_plain(attention: Attention) -> bool:
    """Whether a layer has none of the norms and scales that `ShortAttention` leaves out."""
    norms = (attention.spatial_norm, attention.group_norm, attention.norm_q, attention.norm_k)
    return not any(norms) and not attention.norm_cross and attention.rescale_output_factor == 1
