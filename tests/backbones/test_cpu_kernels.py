"""Kernels of frozen layers, against PyTorch's own layers in double precision."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from motionexp.backbones.cpu_kernels import (
    FrameConvolution,
    FrozenLinear,
    with_fast_kernels,
)

CPU = torch.device("cpu")
LAYERS = {
    "linear": (lambda: nn.Linear(24, 7), (3, 5, 24), FrozenLinear),
    "linear without a bias": (lambda: nn.Linear(24, 7, bias=False), (5, 24), FrozenLinear),
    "along frames": (
        lambda: nn.Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0)), (2, 4, 5, 3, 2), FrameConvolution
    ),
    "of all sides": (lambda: nn.Conv3d(4, 6, 3, padding=1), (2, 4, 5, 3, 2), nn.Conv3d),
    "every second frame": (lambda: nn.Conv3d(4, 6, (3, 1, 1), stride=(2, 1, 1)), (2, 4, 5, 3, 2), nn.Conv3d),
}  # fmt: skip


def outputs(layer, x, **settings):
    """The output, and the gradient of a weighted sum of it with respect to x."""
    x = x.clone().requires_grad_()
    output = layer(x, **settings)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return output, *torch.autograd.grad((output * weights).sum(), x)


def frozen(layer):
    return nn.Sequential(layer).requires_grad_(False)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_pytorchs_in_values_and_gradients(name):
    torch.manual_seed(0)
    make, shape, kind = LAYERS[name]
    layer = frozen(make())
    exact, names = deepcopy(layer).double(), list(layer.state_dict())
    with_fast_kernels(layer, CPU, torch.float32)
    assert type(layer[0]) is kind
    assert list(layer.state_dict()) == names
    x = torch.randn(shape)
    for ours, theirs in zip(outputs(layer, x), outputs(exact, x.double()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def test_what_is_no_frozen_fp32_on_a_cpu_stays_pytorchs():
    for device, dtype in ((CPU, torch.bfloat16), (torch.device("meta"), torch.float32)):
        layer = frozen(nn.Linear(4, 4))
        with_fast_kernels(layer, device, dtype)
        assert type(layer[0]) is nn.Linear
    # A weight that needs a gradient gets it.
    layer = nn.Sequential(nn.Linear(4, 4))
    with_fast_kernels(layer, CPU, torch.float32)
    layer(torch.ones(2, 4)).sum().backward()
    assert torch.equal(layer[0].weight.grad, torch.full((4, 4), 2.0))
    # Of no rows there is nothing to compute.
    assert layer.requires_grad_(False)(torch.ones(0, 4)).shape == (0, 4)
