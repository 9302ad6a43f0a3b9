"""Faster kernels for the frozen layers of a network that computes in fp32 on a CPU.

PyTorch takes MKL for matrix products in fp32, which does not use the AVX-512 of AMD's processors; oneDNN
does. PyTorch has no fast kernel for convolutions of 3D kernels. Results differ from those of PyTorch's
choice in the last bits. Names and parameters stay the same.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def takes_fast_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there are faster kernels than PyTorch's choice."""
    return device.type == "cpu" and dtype == torch.float32 and bool(torch.backends.mkldnn.is_available())


def with_fast_kernels(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A frozen network, changed in place if it computes in fp32 on a CPU that oneDNN knows (not a Mac's)."""
    if not takes_fast_kernels(device, dtype):
        return network
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = FrozenLinear
        elif type(module) is nn.Conv3d and _runs_along_frames(module):
            module.__class__ = FrameConvolution
    return network


class FrozenLinear(nn.Linear):
    """A linear layer that oneDNN computes, where its weight needs no gradient and is fp32 on the CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (..., out) of input (..., in)."""
        weight = self.weight
        is_plain = input.dtype == weight.dtype == torch.float32 and weight.device.type == "cpu"
        if not is_plain or weight.requires_grad or input.numel() == 0:
            return F.linear(input, weight, self.bias)
        output: Tensor = _FrozenProduct.apply(input, weight, self.bias)
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
