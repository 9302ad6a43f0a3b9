"""The weights of a network's blocks: where they wait, and in how many bits, while other blocks compute.

Everywhere `runs` are lists of a network's blocks, each in the order in which its blocks compute.

The ideas are those of diffusers' group offloading and layerwise casting, and samples are equal to its own.
But diffusers changes a weight's `.data`, which the backward pass still needs: with torch 2.15 gradients are
wrong, or end in an error. It also moves all tensors of a block, those that train as well. Here a block gets
other tensors while it computes, and what is attached to it later stays where it is.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Runs = Sequence[Sequence[nn.Module]]
STORED = torch.float8_e4m3fn
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# What diffusers' layerwise casting leaves in its precision in a block.
SENSITIVE = re.compile("norm|pos_embed|patch_embed")
OUTLIERS = 6.0
"""Activations above it multiply whole weights in LLM.int8() (section 3.2); the value is the paper's."""


def offload_blocks(network: nn.Module, runs: Runs, device: torch.device, *, stream: bool) -> None:
    """Keep the frozen tensors of blocks in main memory, but for those of the block that computes.

    Args:
        network: frozen, in main memory; changed in place. What lies outside of the blocks goes to the device.
        runs: of the network.
        device: where to compute.
        stream: whether the tensors of the next block are copied while a block computes. It needs CUDA, and
            keeps the blocks in pinned memory.
    """
    waiting: set[int] = set()
    copying = torch.cuda.Stream(device) if stream else None
    for run in runs:
        blocks = [WaitingBlock(block, device, copying) for block in run]
        for number, block in enumerate(blocks):
            block.before = blocks[number - 1] if number else None
            block.after = blocks[number + 1] if number + 1 < len(blocks) else None
            waiting |= {id(tensor) for *_, tensor in block.places}
    for tensor in (*network.parameters(), *network.buffers()):
        if id(tensor) not in waiting:
            tensor.data = tensor.data.to(device)


class WaitingBlock:
    """A block whose frozen tensors are on the device only while it computes.

    It takes the place of the block's `forward`. With a stream, each block starts the copies of the one that
    computes next. The backward pass computes blocks again in the reverse order: there it is the one before.

    Args:
        block: in main memory.
        device: where it computes.
        stream: of CUDA, for the copies; None: they are made when the block is called.

    Attributes:
        places: of each tensor: the table of a module that holds it, its name there, and the tensor itself.
        before, after: the neighbours in the order of computing.
    """

    def __init__(self, block: nn.Module, device: torch.device, stream: Any) -> None:
        self.device, self.stream = device, stream
        self.before: WaitingBlock | None = None
        self.after: WaitingBlock | None = None
        self._forward, self._copies = block.forward, list[Tensor]()
        self.places: list[tuple[dict[str, Any], str, Tensor]] = []
        for module in block.modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is not None:
                        if stream is not None:
                            tensor.data = tensor.data.pin_memory()
                        self.places.append((table, name, tensor))
        block.forward = self

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Compute as the block does."""
        self.fetch()
        try:
            return self._forward(*args, **settings)
        finally:
            self.give_back()

    def fetch(self) -> None:
        """Put copies on the device in the places of the tensors."""
        if self.stream is None:
            copies = [tensor.to(self.device, copy=True) for *_, tensor in self.places]
        else:
            computing = torch.cuda.current_stream(self.device)
            self.start_copies(computing)
            computing.wait_event(self._copied)
            following = self.before if in_backward() else self.after
            if following is not None:
                following.start_copies(computing)
            copies, self._copies = self._copies, []
        for (table, name, tensor), copy in zip(self.places, copies, strict=True):
            # Other tensors, and not other values: autograd may keep them.
            table[name] = (
                nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy
            )

    def start_copies(self, computing: Any) -> None:
        """Copy the tensors to the device, beside what the stream `computing` gets from now on."""
        if self._copies:
            return
        # They may take the memory of a block that still computes: what was asked for so far ends first.
        self.stream.wait_stream(computing)
        with torch.cuda.stream(self.stream):
            self._copies = [tensor.to(self.device, non_blocking=True) for *_, tensor in self.places]
            self._copied = self.stream.record_event()

    def give_back(self) -> None:
        """Put the tensors in main memory back in their places."""
        for table, name, tensor in self.places:
            table[name] = tensor


def in_backward() -> bool:
    """Whether a backward pass runs in this thread, which may compute a part of a network again."""
    return bool(torch._C._current_graph_task_id() != -1)


def lower_precision(
    network: nn.Module, runs: Runs, precision: str, dtype: torch.dtype, device: torch.device
) -> None:
    """Give the weights of blocks a precision of `network_precision=`.

    On the meta device 8 and 4 bits change nothing.
    """
    if precision == "fp8":
        cast_blocks(runs, dtype)
    elif device.type != "meta":
        quantize_blocks(network, runs, precision, device)


def cast_blocks(runs: Runs, dtype: torch.dtype) -> None:
    """Store the weights of the layers in blocks in 8 bits (e4m3, without a scale), which is irreversible.

    A layer's weights are in `dtype` while it computes.
    """
    for *_, layer in layers_of(runs, LAYERS):
        layer.to(STORED)
        layer.forward = partial(_cast_and_compute, layer, layer.forward, dtype)


def _cast_and_compute(
    layer: nn.Module, forward: Callable[..., Tensor], dtype: torch.dtype, *inputs: Tensor
) -> Tensor:
    stored = dict(layer._parameters)
    for name, tensor in stored.items():
        if tensor is not None:
            layer._parameters[name] = nn.Parameter(tensor.to(dtype), requires_grad=False)
    try:
        return forward(*inputs)
    finally:
        layer._parameters.update(stored)


def layers_of(runs: Runs, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """The layers of blocks that may have fewer bits: the module that has each, its name there, and itself."""
    for block in (block for run in runs for block in run):
        for name, layer in [*block.named_modules()]:
            if isinstance(layer, kinds) and not SENSITIVE.search(name):
                path, _, last = name.rpartition(".")
                yield block.get_submodule(path), last, layer


def quantize_blocks(network: nn.Module, runs: Runs, bits: str, device: torch.device) -> None:
    """Put a frozen network on a device, with 8 or 4 bits for a weight of the linear layers in its blocks.

    diffusers' quantizer asks for a GPU; the layers here are the same, of bitsandbytes. Gradients pass through
    such a layer to its input.

    Args:
        network: in main memory.
        runs: of the network.
        bits: `8bit` (LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339) or `4bit` (NF4, Dettmers et al.
            2023, arXiv 2305.14314).
        device: a GPU or the CPU.
    """
    import bitsandbytes

    for parent, name, layer in layers_of(runs, (nn.Linear,)):
        size, weight = (layer.in_features, layer.out_features), layer.weight.data
        quantized: Any
        if bits == "8bit":
            quantized = bitsandbytes.nn.Linear8bitLt(*size, has_fp16_weights=False, threshold=OUTLIERS)
            quantized.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        else:
            kind = {"quant_type": "nf4", "compress_statistics": False}
            quantized = bitsandbytes.nn.Linear4bit(*size, compute_dtype=weight.dtype, **kind)
            quantized.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, **kind)
            # Weights in the order of its kernel for CPUs suit few sizes, and no gradient.
            quantized.support_avx512bf16_for_cpu = False
        quantized.bias = layer.bias
        # Layer by layer: moving to the device is what quantizes.
        setattr(parent, name, quantized.to(device).eval())
    network.to(device)
