"""The positional embedding of a network, read and replaced.

A network adds it to its tokens, from buffers, or rotates queries and keys by it, with cosines and sines that
a module returns or that `predict` hands over (`Backbone.positions`).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from motionexp.diffusion.backbone import Backbone, Conditioning, VideoShape
from motionexp.errors import InputError


def position_embedding(backbone: Backbone, shape: VideoShape, caption: Conditioning) -> list[Tensor]:
    """The positional embedding of videos (C, F, h, w): copies, fp32, on the backbone's device.

    Where it is added to the tokens, a tensor has one row for each token, or for each frame and for each token
    of a frame. Of a rotary embedding there are the cosines and the sines. `caption` is any one caption.

    Raises:
        InputError: the network has none that can be replaced.
    """
    tensors = list[Tensor]()
    for point in position_points(backbone):
        if (values := backbone.position_argument(point, shape)) is not None:
            tensors += values
        elif _is_module(backbone.network, point):
            tensors += _output_at(backbone, point, shape, caption)
        else:
            tensors.append(_of_video(backbone, backbone.network.get_buffer(point), shape)[1])
    return [tensor.detach().to(backbone.device, torch.float32, copy=True) for tensor in tensors]


class _Read(Exception):
    """Ends a forward pass whose positional embedding has been read."""


def position_points(backbone: Backbone) -> tuple[str, ...]:
    """`Backbone.positions`. Raises InputError if there is none, before weights are loaded."""
    if not backbone.positions:
        raise InputError(
            f"model={backbone.name}: its network has no positional embedding that can be replaced; optimise"
            " the latents"
        )
    return backbone.positions


def _is_module(network: nn.Module, name: str) -> bool:
    return isinstance(getattr(network, name, None), nn.Module)


def _output_at(backbone: Backbone, module: str, shape: VideoShape, caption: Conditioning) -> Sequence[Tensor]:
    """What a module returns in a forward pass, which ends there."""
    outputs = list[Tensor]()

    def read(module: nn.Module, args: Any, output: Any) -> None:
        outputs.extend(output)
        raise _Read

    handle = backbone.network.get_submodule(module).register_forward_hook(read)
    try:
        with torch.no_grad(), suppress(_Read):
            backbone.predict(torch.zeros(1, *shape), 0.0, caption)
    finally:
        handle.remove()
    return outputs


def _of_video(backbone: Backbone, buffer: Tensor, shape: VideoShape) -> tuple[Tensor, Tensor]:
    """The rows of an added embedding (1, S, D) that are the caption's, and those that are the video's."""
    tokens, rows = backbone.video_tokens(shape), buffer.shape[1]
    # One row for each frame, for each token of a frame, or for each token after the caption's columns.
    columns = rows - tokens if rows > max(shape[1], tokens // shape[1]) else 0
    if columns < 0 or (not columns and rows not in (shape[1], tokens // shape[1], tokens)):
        raise InputError(
            f"model={backbone.name}: it has positions for videos of its trained size alone, and not for"
            f" latents of {shape[1]} x {shape[2]} x {shape[3]}; optimise the latents"
        )
    return buffer[:, :columns], buffer[:, columns:]


@contextmanager
def replaced_positions(backbone: Backbone, shape: VideoShape, positions: Sequence[Tensor]) -> Iterator[None]:
    """The positional embedding is replaced for as long as the context is open; gradients reach it.

    Args:
        backbone: its `predict` is called in the context.
        shape: (C, F, h, w) of the latents of these videos.
        positions: in the form of `position_embedding`.

    Raises:
        InputError: as `position_embedding`.
    """
    with ExitStack() as stack:
        _replace(stack, backbone, shape, list(positions))
        yield


def _replace(stack: ExitStack, backbone: Backbone, shape: VideoShape, remaining: list[Tensor]) -> None:
    for point in position_points(backbone):
        if (values := backbone.position_argument(point, shape)) is not None:
            replacement = tuple(remaining.pop(0) for _ in values)
            change = partial(_change_argument, point, replacement)
            # CogVideoX rotates its queries in place, after they were saved for the gradient of the cosines.
            stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
            stack.callback(backbone.network.register_forward_pre_hook(change, with_kwargs=True).remove)
        elif _is_module(backbone.network, point):
            module = backbone.network.get_submodule(point)
            replacement = remaining.pop(0), remaining.pop(0)  # cosines and sines
            stack.callback(module.register_forward_hook(partial(_change_pair, replacement)).remove)
        else:
            parent, _, name = point.rpartition(".")
            module = backbone.network.get_submodule(parent)
            buffer: Tensor = module._buffers[name]  # type: ignore[assignment]
            caption, video = _of_video(backbone, buffer, shape)
            stack.callback(module._buffers.__setitem__, name, buffer)
            module._buffers[name] = torch.cat([caption, remaining.pop(0).to(video.dtype)], dim=1)


def _change_argument(
    name: str, values: tuple[Tensor, ...], network: nn.Module, args: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, name: values}


def _change_pair(values: tuple[Tensor, Tensor], module: nn.Module, args: Any, output: Any) -> Any:
    return tuple(new.to(old.dtype) for new, old in zip(values, output, strict=True))
