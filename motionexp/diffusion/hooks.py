"""Activation hooks: what a network computes inside `predict` is read or replaced, and gradients pass through.

The mechanism is the same for all backbones. Every attention of diffusers ends in torch's fused attention:
there its queries and keys have had their norms and their rotary embedding. A backbone says only what its
blocks are called, and how the tokens of a video lie in them (`Backbone.blocks`).
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from motionexp.diffusion.backbone import Backbone, Block, Conditioning, Layout, ProjectionKind, VideoShape
from motionexp.diffusion.positions import replaced_positions
from motionexp.errors import InputError

ATTENTION_INPUTS = ("query", "key", "value")


class Attended(NamedTuple):
    """What one attention computes with, of the video's tokens alone: (B, heads, F, P, D), P tokens a frame.

    Attributes:
        query, key: after norms and rotary embedding.
        value: as the attention sums it up.
        rows: which videos of the batch these are. Mochi calls its attention once for each video.
        name: of the attention's module.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    rows: slice
    name: str

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        return self.query, self.key, self.value


Predict = Callable[[Tensor, float | Tensor, Conditioning], Tensor | None]
"""`Backbone.predict`; returns None where the hooks stop the forward pass."""
Place = tuple[ProjectionKind, int]
"""A kind of attention, and the number of a block."""
AttentionHook = Callable[[Attended], Attended | None]
"""Gets what an attention computes with. Returns what it should compute with instead; None: no change."""
FeatureHook = Callable[[Tensor], Tensor | None]
"""Gets a block's output (B, D, F, rows, columns). Returns what should replace it; None: no change."""


@dataclass(frozen=True)
class Hooks:
    """What is read or replaced in a forward pass.

    Attributes:
        attention: by the kind of attention and the number of the block. A block of a U-Net may have several
            attentions of a kind: the hook is called for one after the other.
        features: by the number of the block.
        positions: replace the positional embedding, in the form of `position_embedding`; None: no change.
        identity: attentions whose every token attends to itself alone: their output is their values.
        stop: the forward pass ends after the last hooked block.
    """

    attention: Mapping[Place, AttentionHook] = field(default_factory=dict)
    features: Mapping[int, FeatureHook] = field(default_factory=dict)
    positions: Sequence[Tensor] | None = None
    identity: Collection[Place] = ()
    stop: bool = False

    @property
    def blocks(self) -> set[int]:
        """The numbers of the hooked blocks."""
        return {*self.features, *(number for _, number in (*self.attention, *self.identity))}


@contextmanager
def activation_hooks(backbone: Backbone, shape: VideoShape, hooks: Hooks) -> Iterator[Predict]:
    """Make the hooks act on `backbone.predict`, for as long as the context is open.

    Take gradients within the context too: with `checkpointing` the backward pass computes blocks again.
    It yields the `predict` to call.

    Args:
        backbone: its `predict` takes any number of videos.
        shape: (C, F, h, w) of these videos' latents.
        hooks: what to read and to replace.

    Raises:
        InputError: the network has no such block or attention, or no positional embedding to replace.
        RuntimeError: at the end, a hook was not called.
    """
    with ExitStack() as stack:
        hooked = _HookedPass(backbone, shape, stack)
        if hooks.positions is not None:
            stack.enter_context(replaced_positions(backbone, shape, hooks.positions))
        for (kind, number), attention_hook in hooks.attention.items():
            hooked.hook_attention(find_block(backbone, number, kind), kind, attention_hook)
        for kind, number in hooks.identity:
            hooked.make_identity(find_block(backbone, number, kind), kind)
        for number, feature_hook in hooks.features.items():
            hooked.hook_features(find_block(backbone, number), feature_hook)
        if hooks.stop:
            # Last: of two hooks of one module, the one that was registered first is called first.
            hooked.stop_after(find_block(backbone, max(hooks.blocks)))
        yield hooked.predict
        # After an error the pass has run no further: the error says more.
        if hooked.missing and hooked.is_complete:
            names = ", ".join(sorted(hooked.missing))
            raise RuntimeError(f"{backbone.name} did not run {names}, so that nothing was read there")


def find_block(backbone: Backbone, number: int, kind: ProjectionKind | None = None) -> Block:
    """The block of a number; with `kind` it has attention of that kind.

    Raises:
        InputError: there is no such block, or it has no such attention; names those that there are.
    """
    blocks = backbone.blocks
    if not 0 <= number < len(blocks):
        last = f" (0 to {len(blocks) - 1})" if blocks else ", and activation hooks need some"
        raise InputError(f"block={number}: the network of {backbone.name} has {len(blocks)} blocks{last}")
    if kind is not None and not blocks[number].attentions.get(kind):
        having = [str(index) for index, block in enumerate(blocks) if block.attentions.get(kind)]
        raise InputError(
            f"block={number}: in the network of {backbone.name} it has no {kind} attention;"
            f" blocks with {kind} attention: {', '.join(having) or 'none'}"
        )
    return blocks[number]


def self_attentions(backbone: Backbone, block: int) -> list[ProjectionKind]:
    """The kinds of self-attention in a block. Raises InputError if there is no such block, or none in it."""
    kinds: list[ProjectionKind] = [
        kind for kind in ("spatial", "motion") if find_block(backbone, block).attentions.get(kind)
    ]
    return kinds or ["motion" for _ in [find_block(backbone, block, "motion")]]


def grid_of(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the tokens of a frame, whose latents have `height` rows and `width` columns."""
    expected = math.sqrt(tokens * height / width)
    # The nearest number of rows that divides: a U-Net rounds odd sides up.
    rows = min(
        (count for count in range(1, tokens + 1) if tokens % count == 0), key=lambda n: abs(n - expected)
    )
    return rows, tokens // rows


class _Stopped(Exception):
    """Ends a forward pass of which nothing more is needed."""


class _AttentionCalls(TorchFunctionMode):
    """Hands the inputs of the fused attention to a hook, and computes with what it returns.

    A single tensor that the hook returns is the attention's output.
    """

    def __init__(self, hook: Callable[[list[Tensor]], list[Tensor] | Tensor]) -> None:
        super().__init__()
        self.hook = hook

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        fused: Any = F.scaled_dot_product_attention  # as it is now: the memory plan replaces it
        if function is not fused:
            return function(*args, **kwargs)
        # Some of diffusers' attentions name their inputs, others do not.
        inputs = [*args[:3], *(kwargs[name] for name in ATTENTION_INPUTS[len(args[:3]) :])]
        more = {name: value for name, value in kwargs.items() if name not in ATTENTION_INPUTS}
        hooked = self.hook(inputs)
        return hooked if isinstance(hooked, Tensor) else function(*hooked, *args[3:], **more)


class _HookedPass:
    """The hooks of one network, and what they know of the forward pass that runs."""

    def __init__(self, backbone: Backbone, shape: VideoShape, stack: ExitStack) -> None:
        self.backbone, self.shape, self.stack = backbone, shape, stack
        self.network = backbone.network
        self.missing = set[str]()
        self.videos = self.row = 0
        self.is_complete = False
        before = self.network.register_forward_pre_hook(self._count_videos, with_kwargs=True)
        after = self.network.register_forward_hook(self._complete)
        stack.callback(before.remove)
        stack.callback(after.remove)

    def _count_videos(self, network: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """The first argument of a network is its batch of videos."""
        self.videos = len(args[0] if args else kwargs["hidden_states"])

    def predict(self, x_t: Tensor, t: float | Tensor, conditioning: Conditioning) -> Tensor | None:
        """`Backbone.predict`; None where the forward pass was stopped."""
        try:
            return self.backbone.predict(x_t, t, conditioning)
        except _Stopped:
            self.is_complete = True
            return None

    def _complete(self, network: nn.Module, args: Any, output: Any) -> None:
        self.is_complete = True

    # Attention

    def hook_attention(self, block: Block, kind: ProjectionKind, hook: AttentionHook) -> None:
        """Call the hook with the inputs of the attentions of one kind in a block."""
        layout: Layout = "frame" if kind == "spatial" else self.backbone.motion_layout
        first_name = block.attentions[kind][0]
        attend = {
            name: partial(self._attend, name, first_name, layout, hook) for name in block.attentions[kind]
        }
        self._on_attention(attend, first_name)

    def make_identity(self, block: Block, kind: ProjectionKind) -> None:
        """Let the values be the output of the attentions of one kind in a block.

        They are those that the network computes: another hook's are not read.
        """
        first_name = block.attentions[kind][0]
        self._on_attention(
            dict.fromkeys(block.attentions[kind], partial(self._values, first_name)), first_name
        )

    def _on_attention(
        self, hooks: Mapping[str, Callable[[list[Tensor]], list[Tensor] | Tensor]], first_name: str
    ) -> None:
        """Hand the inputs of attentions, by their names, to hooks."""
        self.missing.add(first_name)
        for name, hook in hooks.items():
            module = self.network.get_submodule(name)
            calls = _AttentionCalls(hook)
            # While the module runs and no longer: `backward()`, which may run it again, turns off every
            # mode that was entered before.
            enter, leave = partial(self._enter, calls), partial(self._leave, calls)
            self.stack.callback(module.register_forward_pre_hook(enter).remove)
            # First of the module's hooks: Show-1's attention along time is a hook of the attention before it.
            handle = module.register_forward_hook(leave, always_call=True, prepend=True)
            self.stack.callback(handle.remove)

    def _enter(self, calls: _AttentionCalls, module: nn.Module, args: Any) -> None:
        self.row = 0
        calls.__enter__()

    def _leave(self, calls: _AttentionCalls, module: nn.Module, args: Any, output: Any) -> None:
        calls.__exit__(None, None, None)

    def _attend(
        self, name: str, first_name: str, layout: Layout, hook: AttentionHook, inputs: list[Tensor]
    ) -> list[Tensor]:
        """The inputs (R, heads, S, D) of an attention, as the hook leaves them."""
        self.missing.discard(first_name)
        tokens = inputs[0].shape[2]
        if layout == "all":
            tokens = self.backbone.video_tokens(self.shape)
        first = self.backbone.caption_first
        parts = [_split(tensor, tokens, first) for tensor in inputs]
        query, key, value = (self._to_grid(video, layout) for _, video in parts)
        before = Attended(query, key, value, slice(self.row, self.row + len(query)), name)
        self.row += len(query)
        after = hook(before)
        if after is None:
            return inputs
        changed = []
        for tensor, (caption, video), old, new in zip(
            inputs, parts, before.tensors, after.tensors, strict=True
        ):
            if new is not old:
                flat = _from_grid(new.expand_as(old).to(old.dtype), layout).reshape(video.shape)
                tensor = torch.cat([caption, flat] if first else [flat, caption], dim=2)
            changed.append(tensor)
        return changed

    def _values(self, first_name: str, inputs: list[Tensor]) -> Tensor:
        self.missing.discard(first_name)
        query, _, value = inputs
        # Show-1's attention within frames has keys of the caption, of which no token is a query.
        return _split(value, query.shape[2], self.backbone.caption_first)[1]

    def _to_grid(self, tensor: Tensor, layout: Layout) -> Tensor:
        """(R, heads, S, D) to (B, heads, F, P, D)."""
        if layout == "all":
            return tensor.unflatten(2, (self.shape[1], -1))
        if layout == "frame":  # (B F, heads, P, D)
            return tensor.unflatten(0, (-1, self.shape[1])).transpose(1, 2)
        return tensor.unflatten(0, (self.videos, -1)).permute(0, 2, 3, 1, 4)  # of (B P, heads, F, D)

    # Blocks

    def hook_features(self, block: Block, hook: FeatureHook) -> None:
        """Call the hook with the output of a block."""
        self.missing.add(block.outputs[0])
        self._on_output(block, partial(self._change_output, block, hook))

    def stop_after(self, block: Block) -> None:
        """End the forward pass after a block."""
        self._on_output(block, self._stop)

    def _on_output(self, block: Block, call: Callable[[nn.Module, Any, Any], Any]) -> None:
        for name in block.outputs:
            self.stack.callback(self.network.get_submodule(name).register_forward_hook(call).remove)

    def _stop(self, module: nn.Module, args: Any, output: Any) -> None:
        raise _Stopped

    def _change_output(
        self, block: Block, hook: FeatureHook, module: nn.Module, args: Any, output: Any
    ) -> Any:
        self.missing.discard(block.outputs[0])
        tensor: Tensor = output[0] if isinstance(output, tuple) else output
        new = hook(self._to_map(tensor, block.layout))
        if new is None:
            return output
        changed = self._from_map(new, tensor, block.layout)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def _to_map(self, tensor: Tensor, layout: Layout) -> Tensor:
        """A block's output to (B, D, F, rows, columns)."""
        _, frames, height, width = self.shape
        if tensor.ndim == 4:  # (B F, D, rows, columns) of a U-Net
            return tensor.unflatten(0, (-1, frames)).transpose(1, 2)
        if layout == "all":  # (B, F P, D)
            tokens = tensor.unflatten(1, (frames, -1))
        else:  # (B P, F, D) of attention along time
            tokens = tensor.unflatten(0, (self.videos, -1)).transpose(1, 2)
        return tokens.unflatten(2, grid_of(tokens.shape[2], height, width)).movedim(-1, 1)

    def _from_map(self, features: Tensor, like: Tensor, layout: Layout) -> Tensor:
        """The reverse of `_to_map`, in the shape and precision of `like`."""
        if like.ndim == 4:
            flat = features.transpose(1, 2)
        else:
            flat = features.movedim(1, -1).flatten(2, 3)  # (B, F, P, D)
            flat = flat if layout == "all" else flat.transpose(1, 2)
        return flat.reshape(like.shape).to(like.dtype)


def _split(tensor: Tensor, tokens: int, caption_first: bool) -> tuple[Tensor, Tensor]:
    """The tokens of the caption and those of the video, of (R, heads, S, D)."""
    columns = tensor.shape[2] - tokens
    if caption_first:
        return tensor[:, :, :columns], tensor[:, :, columns:]
    return tensor[:, :, tokens:], tensor[:, :, :tokens]


def _from_grid(tensor: Tensor, layout: Layout) -> Tensor:
    """(B, heads, F, P, D) to the order of (R, heads, S, D), still in five dimensions."""
    if layout == "frame":
        return tensor.transpose(1, 2)
    return tensor if layout == "all" else tensor.permute(0, 3, 1, 2, 4)
